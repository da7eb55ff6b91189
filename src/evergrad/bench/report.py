"""Results for people: a table in the terminal, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

import evergrad
from evergrad.bench.measure import Limits
from evergrad.bench.run import Result


def seconds(value: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s ", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    text = f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"
    return f"[red]{text}[/red]" if ratio < 1 else text


def headline(ours: str, limits: Limits | None, threads: int) -> str:
    isa = evergrad.show_config()["isa"]
    text = f"{ours}{f' ({isa})' if isa else ''}, {threads} thread{'s' * (threads > 1)}"
    if limits is None:
        return f"{text}; limits need the native module"
    return f"{text}; limits {limits.flops / 1e9:.0f} GFLOP/s and {limits.bandwidth / 1e9:.0f} GB/s"


def table(results: Sequence[Result], title: str, peers: Sequence[str]) -> Table:
    """One row a call: our time, how near the limit, and how many times faster than each peer."""
    grid = Table(title=title, title_justify="left", caption_justify="left", header_style="bold")
    grid.caption = (
        "of limit: least time by arithmetic or memory traffic / median time. "
        "vs: the peer's median / ours; above 1 we are faster."
    )
    grid.add_column("op", overflow="fold")
    grid.add_column("case", overflow="fold")
    for column in ("median", "min", "of limit"):
        grid.add_column(column, justify="right", no_wrap=True)
    grid.add_column("bound")
    for peer in peers:
        grid.add_column(f"vs {peer}", justify="right", no_wrap=True)
    previous = None
    for result in results:
        if previous not in (None, result.op):
            grid.add_section()
        previous = result.op
        timing = result.timings[result.ours]
        grid.add_row(
            result.name,
            result.case,
            seconds(timing.median),
            seconds(timing.minimum),
            percent(result.share(result.ours)),
            result.bound or "",
            *(times(result.speedup(peer)) for peer in peers),
        )
    return grid


# Ours first and boldest; peers by colour and by shape, for those who see no colours.
STYLES: dict[str, dict[str, Any]] = {
    "native": dict(color="#0b6e4f", marker="o", s=70),
    "torch": dict(color="#d1495b", marker="s", s=34),
    "numba": dict(color="#3066be", marker="^", s=38),
    "numpy": dict(color="#8d8d8d", marker="D", s=30),
}


def plot(results: Sequence[Result], title: str, path: Path) -> None:
    """How much of the machine's limit each contestant reaches, a row for each call."""
    from matplotlib.figure import Figure

    rows = [r for r in reversed(results) if r.limits is not None]
    if not rows:
        raise ValueError("nothing to plot: without the native module no limit was measured")
    figure = Figure(figsize=(11, 1.6 + 0.24 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    drawn = sorted({name for r in rows for name in r.timings}, key=list(STYLES).index)
    for name in reversed(drawn):
        points = [(r.share(name), y) for y, r in enumerate(rows) if name in r.timings]
        share, position = zip(*points, strict=True)
        axes.scatter(share, position, label=name, zorder=3, linewidths=0, **STYLES[name])
    for y, r in enumerate(rows):
        shares = [s for name in r.timings if (s := r.share(name)) is not None]
        axes.plot([min(shares), max(shares)], [y, y], color="#d8d8d8", linewidth=1.5, zorder=1)
    axes.axvline(1.0, color="black", linewidth=1, linestyle="--", zorder=2)
    axes.set_xscale("log")
    ticks = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
    axes.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks], fontsize=7)
    axes.minorticks_off()
    everything = [s for r in rows for name in r.timings if (s := r.share(name)) is not None]
    axes.set_xlim(min(everything) * 0.8, max(1.25, max(everything) * 1.25))
    axes.set_yticks(range(len(rows)), [f"{r.name}  {r.case}" for r in rows], fontsize=7)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(axis="x", color="#ededed", zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(
        "share of the machine's limit, log scale"
        " (right is faster; beyond the dashed line: from cache)",
        fontsize=8,
    )
    axes.set_title(title, fontsize=9, loc="left")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside upper right", ncols=len(labels), frameon=False
    )
    figure.savefig(path, dpi=140)
