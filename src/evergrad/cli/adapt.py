"""``evergrad adapt``: learn new text from the current version, behind a gate."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Annotated

import typer

from evergrad import continual
from evergrad import train as training
from evergrad.continual import Naive, Replay, Report, Version, VersionStore
from evergrad.datasets import Domain

from . import _options as options
from ._output import REJECTED, JsonOption, UserError, print_json
from ._screen import note
from ._show import show_report
from ._texts import BUILTIN, resolve
from ._verb import verb

_REMEMBER = "Remembering"
_GATE = "Gate (what the new version must meet to become current)"


class StrategyName(str, Enum):
    replay = "replay"
    naive = "naive"


EXAMPLES = (
    "evergrad adapt cpython-code --store run --seconds 30",
    "evergrad adapt notes/ --store run --retain cpython-prose --max-forgetting 0.01",
    "evergrad adapt letters.txt --store run --json || echo 'exit code 3: rejected by the gate'",
)


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, adapt, EXAMPLES)


def adapt(
    texts: options.TextArgument,
    store: options.StoreOption = options.DEFAULT_STORE,
    steps: options.StepsOption = None,
    seconds: options.SecondsOption = None,
    retain: Annotated[
        list[str] | None,
        typer.Option(
            "--retain",
            metavar="TEXT",
            help="What must not be forgotten, by default all that the version has learned; may be"
            " given again.",
            rich_help_panel=_REMEMBER,
            show_default=False,
        ),
    ] = None,
    strategy: Annotated[
        StrategyName,
        typer.Option(
            help="replay: mix old text into every batch; naive: new text alone.",
            rich_help_panel=_REMEMBER,
        ),
    ] = StrategyName.replay,
    replay_fraction: Annotated[
        float,
        typer.Option(help="Share of old text in a batch.", rich_help_panel=_REMEMBER),
    ] = 0.25,
    reservoir: Annotated[
        int,
        typer.Option(min=1, help="Windows of old text to draw from.", rich_help_panel=_REMEMBER),
    ] = 4096,
    max_forgetting: Annotated[
        float,
        typer.Option(
            min=0,
            callback=options.finite,
            help="Largest worsening of any retained text: 0.05 is 5 % more bits per byte.",
            rich_help_panel=_GATE,
        ),
    ] = 0.05,
    min_progress: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.999,
            callback=options.finite,
            help="The new text must gain more than this fraction of its bits per byte.",
            rich_help_panel=_GATE,
        ),
    ] = 0.0,
    discard_rejected: Annotated[
        bool,
        typer.Option(
            "--discard-rejected",
            help="Keep no folder of a rejected version.",
            rich_help_panel=_GATE,
        ),
    ] = False,
    batch_size: options.BatchOption = 16,
    lr: options.RateOption = 1e-3,
    warmup: options.WarmupOption = 0.05,
    weight_decay: options.DecayOption = 0.1,
    seed: options.SeedOption = 0,
    eval_every: options.EvalOption = None,
    patience: options.PatienceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn new text from the current version, and keep the outcome only if it is better.

    The held-out parts of the new and of the retained text are measured before and after. When the
    new text gained and no retained text lost more than allowed, the outcome becomes the current
    version; otherwise it is kept as rejected, the current version stays, and the exit code is 3.
    An interruption at any moment changes nothing.
    """
    opened = VersionStore(store)
    opened.expect_versions()
    with opened.lock():
        base = opened.current()
        model, tokenizer = options.open_model(store, None, base.path)[1:]
        with options.usage():
            steps, seconds = options.budget(steps, seconds, otherwise=30.0)
            config = training.FitConfig(
                steps=steps,
                seconds=seconds,
                batch_size=batch_size,
                window=model.config.context,
                lr=lr,
                warmup=warmup,
                weight_decay=weight_decay,
                seed=seed,
                eval_every=eval_every,
                patience=patience,
            )
            chosen: continual.Strategy = (
                Naive()
                if strategy is StrategyName.naive
                else Replay(replay_fraction, reservoir, seed)
            )
        names = _learned(base) if retain is None else retain
        names = [name for name in dict.fromkeys(names) if name != texts]
        if not names and strategy is StrategyName.replay:
            raise UserError("nothing to replay: name old text with --retain, or --strategy naive")
        new = training.encode_domain(resolve(texts), tokenizer)
        retained = [
            training.encode_domain(_old(name, base, retain is None), tokenizer) for name in names
        ]
        note(
            f"version {base.name} learns {new.name} ({new.train_ids.size:,} tokens), "
            f"must remember {', '.join(names) or 'nothing'}"
        )
        report = continual.adapt(
            opened,
            new,
            retained,
            config,
            strategy=chosen,
            max_forgetting=max_forgetting,
            min_progress=min_progress,
            keep_rejected=not discard_rejected,
        )
    if as_json:
        print_json({**report.to_dict(), "history": None, "store": str(store)})
    else:
        show_report(report)
    if not report.accepted:
        raise typer.Exit(REJECTED)


def _old(name: str, base: Version, was_learned: bool) -> Domain:
    try:
        return resolve(name)
    except UserError as error:
        if not was_learned:
            raise
        if (builtin := f"cpython-{name}") in BUILTIN:  # so `evergrad demo` calls them, for short
            return dataclasses.replace(resolve(builtin), name=name)
        raise UserError(
            f"{error}; version {base.name} has learned it and must remember it: work in the folder"
            " where it lies, or name with --retain what to remember"
        ) from error


def _learned(version: Version) -> list[str]:
    """What the stages up to this version have learned."""
    if "scores" not in version.report:
        return []
    return [name for name in Report.from_dict(version.report).scores.learned if name is not None]
