"""``evergrad demo``: learn prose, then code; what is forgotten without replay, and with it."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from evergrad import datasets, io, models, text
from evergrad import train as training
from evergrad.continual import Naive, Replay, Report, VersionStore, adapt, begin

from . import _options as options
from ._demo_plot import plot_stages
from ._output import JsonOption, UserError, print_json
from ._screen import note, out
from ._show import more_or_fewer, show, shown, table, verdict
from ._verb import verb

MARK = "demo.json"
VOCABULARY = 1024
#: 0.74 million parameters with the vocabulary above.
SHAPE: dict[str, Any] = {"context": 128, "dim": 128, "layers": 3, "heads": 4}
_BATCH: dict[str, Any] = {"batch_size": 16, "window": 128, "weight_decay": 0.3}
TRAIN: dict[str, Any] = {**_BATCH, "lr": 3e-3, "eval_every": 100}
ADAPT: dict[str, Any] = {**_BATCH, "lr": 2e-3, "eval_every": 50}
REPLAY_FRACTION = 0.25
MAX_FORGETTING = 0.05
#: Held-out bytes that are measured: all of the prose, a fair sample of the code.
MEASURED_BYTES = 250_000
#: Held-out bytes for the learning curve, measured many times.
CURVE_BYTES = 40_000
SAMPLE_TOKENS = 90


@dataclass
class Stage:
    """One row of the demo's table.

    Attributes
    ----------
    name : str
        What happened.
    bits_per_byte : dict of str to float
        ``prose`` and ``code``, held out.
    sample : str
        A text that the model wrote then.
    report : Report or None
        None before any training.
    """

    name: str
    bits_per_byte: dict[str, float]
    sample: str
    report: Report | None = None


@dataclass
class DemoResult:
    """What the demo found.

    Attributes
    ----------
    store : Path
        Versions 0001 (prose), 0002 (code without replay), 0003 (code with replay).
    picture : Path
        The learning curve.
    stages : list of Stage
        Before, after prose, after code without replay, after code with replay.
    parameters, seconds : int, float
        Size of the model; wall time of everything.
    """

    store: Path
    picture: Path
    stages: list[Stage]
    parameters: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        naive, replay = (stage.report for stage in self.stages[2:])
        assert naive is not None
        assert replay is not None
        return {
            "store": str(self.store),
            "picture": str(self.picture),
            "parameters": self.parameters,
            "seconds": round(self.seconds, 1),
            "bits_per_byte": {stage.name: stage.bits_per_byte for stage in self.stages},
            "progress_percent": {
                "prose": 100 * _gain(self.stages[0], self.stages[1], "prose"),
                "code without replay": 100 * naive.progress,
                "code with replay": 100 * replay.progress,
            },
            "forgetting_percent": {
                "without replay": 100 * naive.forgetting["prose"],
                "with replay": 100 * replay.forgetting["prose"],
            },
            "metrics": {"without replay": naive.metrics, "with replay": replay.metrics},
            "accepted": {"without replay": naive.accepted, "with replay": replay.accepted},
            "samples": {stage.name: stage.sample for stage in self.stages},
        }


EXAMPLES = (
    "evergrad demo",
    "evergrad demo --out try --train-seconds 10 --adapt-seconds 5",
    "evergrad versions --store demo-run  (afterwards)",
)


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, demo, EXAMPLES)


def demo(
    out_folder: Annotated[
        Path, typer.Option("--out", help="Where versions, picture and results go.")
    ] = Path("demo-run"),
    train_seconds: Annotated[
        float, typer.Option(min=0.1, callback=options.finite, help="Training on prose.")
    ] = 60.0,
    adapt_seconds: Annotated[
        float, typer.Option(min=0.1, callback=options.finite, help="Each adaptation to code.")
    ] = 30.0,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and samples.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Learn prose, then code, and see what is forgotten without replay and with it.

    A small GPT (0.74 million parameters) learns CPython's reference prose. From there it learns
    the standard library's code twice: once from code alone, once with a quarter of every batch
    replayed from the prose. A table shows what each gained and lost on text it never saw, a
    picture the way there. The gate keeps the version that did not forget.
    """
    result = _run(out_folder, train_seconds, adapt_seconds, seed)
    if as_json:
        print_json(result.to_dict())
    else:
        _show(result)


def _run(folder: Path, train_seconds: float, adapt_seconds: float, seed: int) -> DemoResult:
    """All of it; what an earlier demo left in the folder is replaced."""
    started = time.perf_counter()
    root = _fresh_folder(folder)

    note("reading CPython's reference prose and standard library")
    domains = [datasets.cpython_prose(), datasets.cpython_code()]
    tokenizer = text.Tokenizer.train(
        [document for domain in domains for document in domain.train], VOCABULARY
    )
    prose, code = (
        training.encode_domain(domain, tokenizer, max_heldout_bytes=MEASURED_BYTES)
        for domain in domains
    )
    curve = [_for_curve(domain, tokenizer) for domain in domains]
    shape = models.GPT2Config(vocab_size=tokenizer.vocab_size, **SHAPE)
    model = models.GPT2(shape, seed=seed)
    parameters = options.count_parameters(model)
    note(
        f"{prose.train_ids.size:,} tokens of prose, {code.train_ids.size:,} of code; "
        f"{parameters:,} parameters"
    )

    store = VersionStore(root)
    untrained = _sample(model, tokenizer, seed)
    first = begin(
        store,
        model,
        tokenizer,
        prose,
        training.FitConfig(seconds=train_seconds, seed=seed, **TRAIN),
        also_measure=[code],
        curve=curve,
    )
    stages = [
        Stage("before", first.before, untrained),
        Stage("after prose", first.after, _sample(model, tokenizer, seed), first),
    ]
    # Both start from the same version: the only difference is what they see.
    for name, strategy in (
        ("after code without replay", Naive()),
        ("after code with replay", Replay(REPLAY_FRACTION, seed=seed)),
    ):
        report = adapt(
            store,
            code,
            [prose],
            training.FitConfig(seconds=adapt_seconds, seed=seed, **ADAPT),
            strategy=strategy,
            max_forgetting=MAX_FORGETTING,
            base=first.version,
            curve=curve,
        )
        adapted, _ = store.get(str(report.version)).load()
        stages.append(Stage(name, report.after, _sample(adapted, tokenizer, seed), report))

    picture = root / "learning-curve.png"
    titles = ("learn prose", "learn code, without replay", "learn code, with replay")
    reports = [stage.report for stage in stages if stage.report is not None]
    plot_stages(
        picture,
        [(title, report.history) for title, report in zip(titles, reports, strict=True)],
    )
    result = DemoResult(root, picture, stages, parameters, time.perf_counter() - started)
    io.write_json(root / MARK, result.to_dict())
    return result


def _fresh_folder(root: Path) -> Path:
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        if not (root / MARK).is_file():
            raise UserError(f"{root}: is there already, and not from a demo; choose another --out")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    io.write_json(root / MARK, {})
    return root


def _gain(before: Stage, after: Stage, domain: str) -> float:
    return 1 - after.bits_per_byte[domain] / before.bits_per_byte[domain]


def _for_curve(domain: datasets.Domain, tokenizer: text.Tokenizer) -> training.EncodedDomain:
    """A short held-out part; nothing is trained on this one, so a document stands for the rest."""
    sample = dataclasses.replace(domain, train=domain.train[:1])
    return training.encode_domain(sample, tokenizer, max_heldout_bytes=CURVE_BYTES)


def _sample(model: Any, tokenizer: text.Tokenizer, seed: int) -> str:
    ids = models.generate(
        model,
        np.array([tokenizer.eot]),
        SAMPLE_TOKENS,
        temperature=0.7,
        top_k=50,
        seed=seed,
        stop=tokenizer.eot,
    )
    return tokenizer.decode(ids[1:])


def _sentences(result: DemoResult) -> list[str]:
    """Progress and forgetting in words."""
    before, prose, naive, replay = result.stages
    assert naive.report is not None
    assert replay.report is not None
    lost, kept = naive.report.forgetting["prose"], replay.report.forgetting["prose"]
    told = [
        f"Prose learned: it takes {100 * _gain(before, prose, 'prose'):.0f} % fewer bits than "
        f"before ({before.bits_per_byte['prose']:.2f} to {prose.bits_per_byte['prose']:.2f} "
        "per byte).",
        f"Code without replay: code takes {100 * naive.report.progress:.0f} % fewer bits, but "
        f"{_kept(naive.report, 'prose')}.",
        f"Code with replay: code takes {100 * replay.report.progress:.0f} % fewer bits, and "
        f"{_kept(replay.report, 'prose')}.",
    ]
    if lost > 0:
        told.append(
            f"A quarter of old text in every batch prevented {100 * min(1 - kept / lost, 1):.0f} % "
            "of the forgetting."
        )
    return told


def _kept(report: Report, name: str) -> str:
    worse = report.forgetting[name]
    told = "forgotten"
    if shown(worse) <= 0:
        told = "nothing forgotten"
    elif worse <= report.gate["max_forgetting"]:
        told = "no more than the gate allows"
    return f"{name} takes {more_or_fewer(worse)}: {told}"


def _show(result: DemoResult) -> None:
    made = table("held-out text", "prose", "code", title="Bits per byte (lower is better)")
    for stage in result.stages:
        values = [f"{stage.bits_per_byte[name]:.3f}" for name in ("prose", "code")]
        made.add_row(stage.name, *values)
    show(made)
    out.print()
    for sentence in _sentences(result):
        out.print(escape(sentence), soft_wrap=True)
    out.print()
    for stage in result.stages[2:]:
        assert stage.report is not None
        out.print(f"{stage.name}: {verdict(stage.report)}", soft_wrap=True)
    for stage in result.stages:
        out.print(f"\n[bold]A sample {stage.name}[/bold]")
        out.print(escape(stage.sample.strip("\n")), soft_wrap=True)
    out.print(f"\nLearning curve: {result.picture}", markup=False, soft_wrap=True)
    versions = f"evergrad versions --store {result.store}"
    out.print(f"All versions:   {versions}", markup=False, soft_wrap=True)
    out.print(f"[dim]{result.seconds:.0f} s in all[/dim]")
