"""``evergrad bench``: every kernel against the limits of this machine and against its peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import evergrad
from evergrad.bench import cases
from evergrad.bench.measure import FULL, QUICK
from evergrad.bench.op import Case
from evergrad.bench.peers import PEERS, installed
from evergrad.bench.run import directions, measure
from evergrad.bench.worker import workers

from ._output import JsonOption, UserError, err, out, print_json
from ._verb import verb

#: Columns of the table where the output is not a terminal.
WIDTH = 150
EXAMPLES = (
    "evergrad bench --quick",
    "evergrad bench --ops matmul,attention --against torch",
    "evergrad bench --threads 1 --plot bench.png",
    "evergrad bench --quick --json",
)


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, bench, EXAMPLES)


def bench(
    ops: Annotated[
        str | None, typer.Option("--ops", help="Only these ops, separated by commas.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="Peers: torch, numba, numpy. By default those installed."),
    ] = None,
    num_threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads, for everyone.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One case for each op, fewer rounds.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Also draw the shares of the limit (PNG, SVG).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time every kernel, forward and backward, against this machine's limits and against peers.

    The limits (arithmetic peak, memory bandwidth) are measured first. Then all take turns, each in
    a process of its own, on the same arguments with the same number of threads: read the ratios
    rather than the times. What stays in cache between calls comes faster than memory allows, and
    goes beyond 100 %.
    """
    from rich.progress import track

    from evergrad.bench import report

    chosen = _chosen(ops, quick)
    peers = _peers(against)
    if plot is not None and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"{plot}: expected a name that ends in .png, .svg or .pdf")
    ours = installed()[0]
    if plot is not None and ours != "native":
        raise UserError("--plot needs the limits, which the native module measures")
    count = evergrad.get_num_threads() if num_threads is None else num_threads
    calls = [(case, backward) for case in chosen for backward in directions(case)]
    with workers([ours, *peers], count) as contestants:
        limits = contestants[ours].limits() if ours == "native" else None
        title = report.headline(ours, limits, count)
        results = [
            measure(case, backward, contestants, limits, QUICK if quick else FULL)
            for case, backward in track(calls, title, console=err, transient=True)
        ]
    if as_json:
        print_json({
            "config": evergrad.show_config(),
            "threads": count,
            "limits": limits and {"flops": limits.flops, "bytes_per_second": limits.bandwidth},
            "results": [result.as_dict() for result in results],
        })  # fmt: skip
    else:
        if not out.is_terminal:  # a table squeezed into a pipe's 80 columns is unreadable
            out.width = max(out.width, WIDTH)
        out.print(report.table(results, title, peers))
    if plot is not None:
        report.plot(results, title, plot)
        err.print(f"wrote {plot}")


def _chosen(ops: str | None, quick: bool) -> Sequence[Case]:
    everything = list(cases.benched(quick))
    if ops is None:
        return everything
    wanted = [name.strip() for name in ops.split(",")]
    known = {case.op.name for case in everything}
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(
                f"expected some of {', '.join(sorted(known))}, got {name!r}", param_hint="--ops"
            )
    return [case for case in everything if case.op.name in wanted]


def _peers(against: str | None) -> list[str]:
    present = installed()
    if against is None:
        return [peer for peer in PEERS if peer in present[1:]]
    wanted = [name.strip() for name in against.split(",") if name.strip()]
    for name in wanted:
        if name not in PEERS:
            raise typer.BadParameter(
                f"expected some of {', '.join(PEERS)}, got {name!r}", param_hint="--against"
            )
        if name not in present[1:]:
            raise UserError(f"{name} is not installed: pip install 'evergrad[{name}]'")
    return wanted
