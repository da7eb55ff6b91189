"""Tables and sentences about a report, for people."""

from __future__ import annotations

from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from evergrad.continual import Report

from ._screen import out

#: What is longer, as a path, is broken where a table has no room.
LONGEST_WORD = 20


def percent(fraction: float) -> str:
    """``+1.2 %`` or ``-1.2 %``."""
    return f"{shown(fraction):+.1f} %"


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table: names to the left, numbers to the right."""
    made = Table(
        title=None if title is None else escape(title),
        title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for index, column in enumerate(columns):
        made.add_column(
            escape(column),
            justify="left" if index == 0 else "right",
            no_wrap=index > 0,
            overflow="fold",
        )
    return made


def show(made: Table) -> None:
    """Whole words and numbers: a terminal too narrow for them wraps the rows."""
    anywhere = out.options.update_width(10_000)  # measured here, all would fit by breaking
    for column in made.columns:
        sizes = [Measurement.get(out, anywhere, cell) for cell in (column.header, *column.cells)]
        column.min_width = max(
            size.maximum if column.no_wrap else min(size.minimum, LONGEST_WORD) for size in sizes
        )
    needed = Measurement.get(out, anywhere, made).minimum
    if needed > out.width:
        made.width = needed
    out.print(made, crop=False)


def show_report(report: Report) -> None:
    """Before and after of every domain, the verdict, and the metrics over all stages."""
    made = table("held-out text", "role", "before", "after", "change", title="Bits per byte")
    for name in report.before:
        role = "learned" if name == report.domain else "measured"
        if name in report.retained:
            role = "retained"
        made.add_row(
            escape(name),
            role,
            f"{report.before[name]:.3f}",
            f"{report.after[name]:.3f}",
            percent(report.worsening(name)),
        )
    show(made)
    out.print()
    for sentence in sentences(report):
        out.print(escape(sentence), soft_wrap=True)
    if report.kind == "adapt":
        numbers = "  ".join(
            f"{name} {value:+.3f}" for name, value in report.metrics.items() if value == value
        )
        out.print(f"[dim]over all stages, bits per byte negated: {numbers}[/dim]", soft_wrap=True)
    out.print(verdict(report), soft_wrap=True)


def sentences(report: Report) -> list[str]:
    """Progress and forgetting in words."""
    name = report.domain
    told = [f"Progress: {name} needs {more_or_fewer(-report.progress)}."]
    for old, worse in report.forgetting.items():
        what = "Nothing forgotten" if shown(worse) <= 0 else "Forgetting"
        told.append(f"{what}: {old} needs {more_or_fewer(worse)}.")
    return told


def shown(fraction: float) -> float:
    """Percent, to the digit that is shown; never -0.0."""
    return round(100 * fraction, 1) + 0.0


def more_or_fewer(worse: float) -> str:
    """``1.2 % more bits than before``."""
    change = shown(worse)
    if change == 0:
        return "as many bits as before"
    return f"{abs(change):.1f} % {'fewer' if change < 0 else 'more'} bits than before"


def verdict(report: Report) -> str:
    """One line, with rich markup."""
    if report.accepted:
        return f"[green]Accepted:[/green] version {report.version} is current."
    kept = f"kept as version {report.version}" if report.version else "not kept"
    reasons = escape("; ".join(report.reasons))
    return f"[yellow]Rejected[/yellow] ({kept}, {report.parent} stays current): {reasons}."
