"""Results for people: a table in the terminal, and a picture."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

import evergrad
from evergrad import io
from evergrad.bench.bars import Measured, bars, geometric_mean
from evergrad.bench.measure import Limits
from evergrad.bench.programs import Program
from evergrad.bench.run import Result
from evergrad.bench.run_steps import COMPARED, StepResult
from evergrad.bench.steps import INFERENCE


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


def size(count: float) -> str:
    """Bytes in three digits and a unit."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.0f} MB"


def headline(ours: str, limits: Limits | None, threads: int) -> str:
    isa = evergrad.show_config()["isa"]
    text = f"{ours}{f' ({isa})' if isa else ''}, {threads} thread{'s' * (threads > 1)}"
    if limits is None:
        return f"{text}; limits need the native module"
    return f"{text}; limits {limits.flops / 1e9:.0f} GFLOP/s and {limits.bandwidth / 1e9:.0f} GB/s"


@dataclass
class Grid:
    """A table for the terminal and for a Markdown page: cells as text with rich's markup."""

    title: str
    columns: Sequence[str]
    note: str = ""
    words: int = 1  # so many columns hold words, the others numbers
    sections: list[list[list[str]]] = field(default_factory=list)

    def rich(self) -> Table:
        grid = Table(
            title=self.title, title_justify="left", caption=self.note, caption_justify="left",
            header_style="bold",
        )  # fmt: skip
        for index, column in enumerate(self.columns):
            if index < self.words:
                grid.add_column(column, overflow="fold")
            else:
                grid.add_column(column, justify="right", no_wrap=True)
        for rows in self.sections:
            for row in rows:
                grid.add_row(*row)
            grid.add_section()
        return grid

    def show(self, console: Console) -> None:
        """As a table; where that would break words in two, as a paragraph for each row."""
        table = self.rich()
        anywhere = console.options.update_width(10_000)  # measured here, it would fit by breaking
        if Measurement.get(console, anywhere, table).minimum <= console.width:
            console.print(table)
            return
        console.print(self.title, style="italic", markup=False)
        for row in itertools.chain.from_iterable(self.sections):
            console.print(f"[bold]{'  '.join(filter(None, row[: self.words]))}[/bold]")
            numbers = zip(self.columns[self.words :], row[self.words :], strict=True)
            line = ", ".join(f"{name} {number.strip()}" for name, number in numbers if number)
            console.print(Padding(line, (0, 0, 0, 4)))
        console.print(self.note, style="dim italic", markup=False)

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(_without_markup(cell) for cell in cells) + " |"

        rule = ["---" if i < self.words else "---:" for i in range(len(self.columns))]
        rows = [row for section in self.sections for row in section]
        table = "\n".join(map(line, (self.columns, rule, *rows)))
        return f"{table}\n\n{self.note}\n" if self.note else f"{table}\n"


def _without_markup(cell: str) -> str:
    return re.sub(r"\[(red|bold)\](.*?)\[/\1\]", r"**\2**", cell).strip()


def op_table(results: Sequence[Result], title: str, peers: Sequence[str]) -> Grid:
    """One row a call: our time, how near the limit, and how many times faster than each peer."""
    grid = Grid(
        title,
        [
            "op",
            "case",
            "bound",
            "median",
            "min",
            "of limit",
            *(f"vs {p}" for p in peers),
            "vs best",
        ],
        "of limit: least time by arithmetic or memory traffic / median time. vs: the peer's median"
        " / ours; above 1 we are faster. best: the faster one of PyTorch and NumPy.",
        words=3,
    )
    for _, group in itertools.groupby(results, key=lambda r: r.op):
        rows = []
        for result in group:
            timing = result.timings[result.ours]
            rows.append([
                result.name,
                result.case,
                result.bound or "",
                seconds(timing.median),
                seconds(timing.minimum),
                percent(result.share(result.ours)),
                *(times(result.speedup(peer)) for peer in peers),
                times(result.best),
            ])  # fmt: skip
        grid.sections.append(rows)
    return grid


def family_table(results: Sequence[Result]) -> Grid:
    """The geometric mean and the worst of a family's ratios to the best peer.

    Where PyTorch was measured, calls that it has no counterpart to are left out: NumPy's formula is
    no match, and would raise the mean.
    """
    with_torch = any("torch" in r.timings for r in results)
    grid = Grid(
        "Against the best peer, by family",
        ["family", "worst call", "calls", "geometric mean", "worst"],
        "Without calls that PyTorch has no counterpart to." if with_torch else "",
        words=2,
    )
    families = dict.fromkeys(r.family for r in results)
    rows = []
    for family in families:
        calls = [
            (r.best, r)
            for r in results
            if r.family == family
            and r.best is not None
            and ("torch" in r.timings or not with_torch)
        ]
        if not calls:
            continue
        worst, call = min(calls, key=lambda pair: pair[0])
        mean = geometric_mean([ratio for ratio, _ in calls])
        rows.append([
            family, f"{call.name} {call.case}", str(len(calls)), times(mean), times(worst)
        ])  # fmt: skip
    grid.sections.append(rows)
    return grid


def step_table(results: Sequence[StepResult], title: str) -> Grid:
    """A row for each contestant of each step."""
    grid = Grid(
        title,
        [
            "step", "contestant", "median", "vs torch", "MFU", "1 to all threads",
            "round trip", "peak memory", "of torch", "without imports", "of torch", "difference",
        ],
        "MFU: useful operations (the causal half once, nothing twice) at the peak of multiply-adds"
        " / median time. round trip: of a cache line from core to core and back, while the step was"
        " measured; far apart, threads gain less. Peak memory: of the process, a fresh one for each"
        " step; then less what it held after imports and a step on next to nothing. difference: the"
        f" largest relative one between our losses and PyTorch's over the first {COMPARED} steps.",
        words=2,
    )  # fmt: skip
    for result in results:
        rows = []
        for name, course in result.courses.items():
            is_ours = name == result.ours
            whole, own = (is_ours and result.memory("torch")) or (None, None)
            difference = result.difference("torch") if is_ours else None
            rows.append([
                f"{result.name}: {result.shape}" if is_ours else "",
                name,
                seconds(course.timing.median),
                times(result.speedup("torch") if is_ours else None),
                percent(result.mfu(name)),
                f"{course.scaling:.2f}x" if course.scaling else "",
                f"{result.round_trip * 1e9:.0f} ns" if is_ours and result.round_trip else "",
                size(course.peak_bytes),
                f"{whole:.2f}x" if whole else "",
                size(course.own_bytes),
                f"{own:.2f}x" if own else "",
                f"{difference[0]:.0e}" if difference else "",
            ])  # fmt: skip
        grid.sections.append(rows)
    return grid


def work_table(results: Sequence[StepResult], title: str) -> Grid:
    """What pretrained models do: a row for each contestant."""
    grid = Grid(
        title,
        ["work", "contestant", "median", "a second", "ours is faster", "peak memory"],
        "Peak memory: of a whole program, from the start of the process to its end.",
        words=2,
    )
    for result in results:
        work, rows = INFERENCE[result.name], []
        for name, course in result.courses.items():
            is_ours = name == result.ours
            rate = work.amount / course.timing.median
            rows.append([
                f"{result.name}: {result.shape}" if is_ours else "",
                name,
                seconds(course.timing.median),
                f"{rate:.3g} {work.unit}" if work.unit else "",
                "" if is_ours else times(result.speedup(name)),
                size(course.given_median * 1e6) if isinstance(work, Program) else "",
            ])  # fmt: skip
        grid.sections.append(rows)
    return grid


def left_out(results: Sequence[StepResult]) -> list[str]:
    """Contestants whose process ended early, and why."""
    return [f"{r.name}: {why}; it is left out" for r in results for why in r.ended_early]


def bar_table(measured: Measured) -> Grid:
    """What must hold, and whether it does."""
    grid = Grid(
        "What must hold",
        ["what", "", "measured", "bar", "aim"],
        "Times over the best peer's, medians of one run.",
        words=2,
    )
    rows = []
    for bar in bars():
        value, holds = bar.value(measured), bar.holds(measured)
        verdict = {None: "not measured", True: "holds", False: "[red]falls short[/red]"}[holds]
        rows.append([
            bar.what,
            verdict,
            "" if value is None else _figure(value, bar.unit, apart_from=bar.bar),
            ("at most " if bar.at_most else "") + _figure(bar.bar, bar.unit),
            "" if bar.aim is None else _figure(bar.aim, bar.unit),
        ])  # fmt: skip
    grid.sections.append(rows)
    return grid


def _figure(value: float, unit: str, apart_from: float | None = None) -> str:
    """Two decimals, or as many as show on which side of a bar it lies."""
    if not 0.01 <= abs(value) < 100:
        return f"{value:.1e}{unit}"
    decimals = 2
    while value != apart_from and float(f"{value:.{decimals}f}") == apart_from:
        decimals += 1
    return f"{value:.{decimals}f}{unit}"


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
    io.write_picture(path, figure, dpi=140)
