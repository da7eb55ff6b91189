"""Learning as a transaction: a new version is measured first and becomes current only then.

Interrupted, killed, diverged or rejected, a stage leaves ``current`` where it was.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from evergrad import train
from evergrad.text import Tokenizer

from .report import Report
from .scores import ScoreMatrix
from .strategies import Naive, Replay, Strategy
from .versions import VersionStore

__all__ = ["adapt", "begin", "gate"]

#: Of a quotient of scores: 2.1 / 2.0 - 1 lies above 0.05, which is what it stands for.
ROUNDING = 1e-12


def begin(
    store: VersionStore,
    model: Any,
    tokenizer: Tokenizer,
    domain: train.EncodedDomain,
    config: train.FitConfig,
    *,
    also_measure: Sequence[train.EncodedDomain] = (),
    curve: Sequence[train.EncodedDomain] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Report:
    """Train the first version of a store.

    Parameters
    ----------
    store : VersionStore
        One without versions.
    model : GPT2
        Untrained; trained in place.
    tokenizer : Tokenizer
        What the domains were encoded with.
    domain : EncodedDomain
        What to learn.
    config : FitConfig
        Budget and settings of the training.
    also_measure : sequence of EncodedDomain
        Other domains to enter into R, so that forward transfer to them can be told later.
    curve : sequence of EncodedDomain, optional
        What ``config.eval_every`` measures on the way, such as shorter held-out parts. Default:
        the domains themselves.
    checkpoint, resume
        See ``train.fit``.
    progress : bool
        Show a bar on standard error.

    Returns
    -------
    Report
        Of the version, which is current now.

    Raises
    ------
    StoreError
        When the store has a current version: ``adapt`` goes on from that.
    StoreLockedError
        When another writer holds the store.
    TrainingDiverged
        When a loss or a score is not finite; the store is as before.
    """
    started = time.perf_counter()
    domains = _distinct([domain, *also_measure])
    sample = Naive().sampler(domain, ())
    with store.lock():
        store.expect_empty()
        before = _measure(model, domains, config.window)
        scores = ScoreMatrix()
        scores.add("untrained", None, before)
        history = train.fit(
            model,
            sample,
            config,
            evaluate=_curve(model, curve or domains, config),
            checkpoint=checkpoint,
            resume=resume,
            progress=progress,
            label=f"train on {domain.name}",
        )
        after = _measure(model, domains, config.window)
        for name, bits in after.items():
            if not math.isfinite(bits):
                raise train.TrainingDiverged(f"after training, {name} has {bits} bits per byte")
        scores.add(f"{store.next_name()} {domain.name}", domain.name, after)
        report = Report(
            kind="train",
            domain=domain.name,
            retained=[],
            before=before,
            after=after,
            scores=scores,
            config=dataclasses.asdict(config),
            seconds=_seconds(history, started),
            history=history.rows,
        )
        return _commit(store, model, tokenizer, report, parent=None)


def adapt(
    store: VersionStore,
    new: train.EncodedDomain,
    retained: Sequence[train.EncodedDomain],
    config: train.FitConfig,
    *,
    strategy: Strategy | None = None,
    max_forgetting: float = 0.05,
    min_progress: float = 0.0,
    base: str | int | None = None,
    keep_rejected: bool = True,
    curve: Sequence[train.EncodedDomain] | None = None,
    progress: bool = True,
) -> Report:
    """Learn a new domain from a version; accept the outcome only if it learned and remembers.

    All domains are measured before and after. The new version becomes current when the new domain
    gained more than ``min_progress`` and no retained domain lost more than ``max_forgetting``, both
    as fractions of the bits per byte before. Otherwise ``current`` stays where it was.

    Parameters
    ----------
    store : VersionStore
        Locked for the whole time: what a version is built on must not change meanwhile.
    new : EncodedDomain
        What to learn, encoded with the tokenizer of the version.
    retained : sequence of EncodedDomain
        What must not be forgotten; may be empty when the strategy allows it.
    config : FitConfig
        Budget and settings of the training.
    strategy : Strategy, optional
        Default: ``Replay()``.
    max_forgetting : float
        Largest relative worsening of any retained domain, at least 0; 0.05 is five percent.
    min_progress : float
        The gain on the new domain must be above this fraction.
    base : str or int, optional
        The version to start from. Default: the current one.
    keep_rejected : bool
        Keep the folder of a rejected version, with its report, for inspection.
    curve : sequence of EncodedDomain, optional
        What ``config.eval_every`` measures on the way, such as shorter held-out parts. Default:
        the domains themselves.
    progress : bool
        Show a bar on standard error.

    Returns
    -------
    Report
        ``accepted`` and ``reasons`` hold the verdict; ``version`` is None when nothing was kept.

    Raises
    ------
    ValueError
        When a limit is out of range, two domains have one name, or the strategy has nothing to
        draw from.
    StoreError
        When there is no version to start from.
    StoreLockedError
        When another writer holds the store.
    TrainingDiverged
        When a loss is not finite; the store is as before.
    """
    if not max_forgetting >= 0:
        raise ValueError(f"max_forgetting: expected at least 0, got {max_forgetting}")
    if not 0 <= min_progress < 1:
        raise ValueError(f"min_progress: expected a fraction in [0, 1), got {min_progress}")
    started = time.perf_counter()
    strategy = strategy or Replay()
    domains = _distinct([new, *retained])
    sample = strategy.sampler(new, retained)  # what it refuses is better known before the work
    store.expect_versions()  # or the lock would make a folder of a wrong name
    with store.lock():
        origin = store.find(base)
        model, tokenizer = origin.load()
        before = _measure(model, domains, config.window)
        scores = _scores_so_far(origin.report, model, domains, config.window)
        scores.measure(len(scores.stages) - 1, before)
        history = train.fit(
            model,
            sample,
            config,
            evaluate=_curve(model, curve or domains, config),
            progress=progress,
            label=f"adapt to {new.name} ({strategy.name})",
        )
        after = _measure(model, domains, config.window)
        scores.add(f"{store.next_name()} {new.name}", new.name, after)
        report = Report(
            kind="adapt",
            domain=new.name,
            retained=[domain.name for domain in retained],
            before=before,
            after=after,
            scores=scores,
            gate={"max_forgetting": max_forgetting, "min_progress": min_progress},
            strategy=strategy.to_dict(),
            config=dataclasses.asdict(config),
            seconds=_seconds(history, started),
            history=history.rows,
        )
        report.reasons = gate(report, max_forgetting, min_progress)
        report.accepted = not report.reasons
        if not report.accepted and not keep_rejected:
            report.parent = origin.name
            return report
        return _commit(store, model, tokenizer, report, parent=origin.name)


def gate(report: Report, max_forgetting: float, min_progress: float) -> list[str]:
    """Why a version must not become current.

    Parameters
    ----------
    report : Report
        With ``before`` and ``after``.
    max_forgetting, min_progress : float
        See ``adapt``.

    Returns
    -------
    list of str
        A sentence per violated condition; empty when the version may pass.

    Examples
    --------
    >>> report = Report(
    ...     kind="adapt", domain="code", retained=["prose"], scores=ScoreMatrix(),
    ...     before={"code": 4.0, "prose": 2.0}, after={"code": 3.0, "prose": 2.2},
    ... )
    >>> gate(report, 0.05, 0.0)
    ['prose got 10.0 % worse (2.000 to 2.200 bits per byte), more than the 5.0 % allowed']
    >>> gate(report, 0.2, 0.0)
    []
    """
    reasons = []
    # Conditions are written so that NaN violates them.
    if not report.progress > min_progress + ROUNDING:
        gained, least = _percent(report.progress, min_progress)
        reasons.append(
            f"{report.domain} gained {gained} % ({_change(report, report.domain)}),"
            f" expected more than {least} %"
        )
    for name, value in report.forgetting.items():
        if not value <= max_forgetting + ROUNDING:
            worse, most = _percent(value, max_forgetting)
            reasons.append(
                f"{name} got {worse} % worse ({_change(report, name)}),"
                f" more than the {most} % allowed"
            )
    return reasons


def _percent(value: float, limit: float) -> tuple[str, str]:
    """Both in percent, with the digits that tell the limit, and the value from it."""
    value, limit = 100 * value + 0.0, 100 * limit  # never -0.0
    for digits in range(1, 12):
        shown = f"{value:.{digits}f}", f"{limit:.{digits}f}"
        is_told = math.isclose(float(shown[1]), limit, rel_tol=0.01)
        differ = float(shown[0]) != float(shown[1])  # "-0.0" is 0.0
        if is_told and (differ or math.isclose(value, limit, abs_tol=ROUNDING)):
            break
    return shown


def _change(report: Report, domain: str) -> str:
    return f"{report.before[domain]:.3f} to {report.after[domain]:.3f} bits per byte"


def _distinct(domains: Sequence[train.EncodedDomain]) -> list[train.EncodedDomain]:
    names = [domain.name for domain in domains]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"domains: each needs a name of its own, {repeated[0]!r} is there twice")
    return list(domains)


def _measure(model: Any, domains: Sequence[train.EncodedDomain], window: int) -> dict[str, float]:
    return {
        domain.name: train.bits_per_byte(model, domain.heldout_ids, domain.heldout_bytes, window)
        for domain in domains
    }


def _curve(model: Any, domains: Sequence[train.EncodedDomain], config: train.FitConfig) -> Any:
    if config.eval_every is None:
        return None
    return lambda: _measure(model, domains, config.window)


def _scores_so_far(
    report: Mapping[str, Any],
    model: Any,
    domains: Sequence[train.EncodedDomain],
    window: int,
) -> ScoreMatrix:
    """R up to the version that is adapted, with the untrained model's score on every domain."""
    if "scores" in report:
        scores = ScoreMatrix.from_dict(report["scores"])
    else:  # a model that was not trained here: what it learned is not known
        scores = ScoreMatrix()
        scores.add("untrained", None, {})
        scores.add(str(report["version"]), None, {})
    unknown = [domain for domain in domains if domain.name not in scores.rows[0]]
    if unknown:
        untrained = type(model)(model.config, seed=0)
        scores.measure(0, _measure(untrained, unknown, window))
    return scores


def _seconds(history: train.History, started: float) -> dict[str, float]:
    return {
        "train": float(history.rows[-1]["seconds"]) if history.rows else math.nan,
        "total": time.perf_counter() - started,
    }


def _commit(
    store: VersionStore, model: Any, tokenizer: Tokenizer, report: Report, parent: str | None
) -> Report:
    version = store.add(model, tokenizer, report.to_dict(), parent=parent)
    report.version, report.parent = version.name, version.parent
    return report
