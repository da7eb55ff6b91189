"""How a run shows that it is alive: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import Any, Protocol

SECONDS_BETWEEN_LINES = 15.0


class Progress(AbstractContextManager["Progress"], Protocol):
    """Told after every step how much of the budget is used, and the row of the step."""

    def update(self, fraction: float, row: dict[str, Any]) -> None:
        """Show it."""


def show_progress(label: str, wanted: bool) -> Progress:
    """The display that fits: none, a bar (`rich`, on a terminal), or plain lines; on stderr."""
    if not wanted or sys.stderr is None:  # closed: nobody looks
        return Silence()
    if sys.stderr.isatty():
        try:
            return Bar(label)
        except ImportError:
            pass
    return Lines(label)


class Silence(Progress):
    """Shows nothing."""

    def update(self, fraction: float, row: dict[str, Any]) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class Lines(Progress):
    """A plain line at the beginning, at evaluations, at the end, and every fifteen seconds."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._next = 0.0

    def update(self, fraction: float, row: dict[str, Any]) -> None:
        now = time.monotonic()
        if now >= self._next or fraction >= 1 or _scores(row):
            self._next = now + SECONDS_BETWEEN_LINES
            text = f"{self._label}: {min(fraction, 1):4.0%}  step {row['step']}  {_describe(row)}"
            print(text, file=sys.stderr, flush=True)

    def __exit__(self, *error: object) -> None:
        pass


class Bar(Progress):
    """A bar with loss, speed, the last scores, and the time that is left."""

    def __init__(self, label: str) -> None:
        from rich import progress
        from rich.console import Console
        from rich.table import Column
        from rich.text import Text

        class Words(progress.ProgressColumn):
            """Text that is no markup, and ends in … where the line is too short for it."""

            def __init__(self, name: str) -> None:
                # What may not wrap, rich shortens together with all others, down to nothing.
                super().__init__(Column(no_wrap=False))
                self.name = name

            def render(self, task: progress.Task) -> Text:
                return Text(task.fields[self.name], no_wrap=True, overflow="ellipsis")

        self._scores = ""
        console = Console(stderr=True)
        self._bar = progress.Progress(
            Words("label"),
            progress.BarColumn(
                min(max(console.width - 100, 8), 40), table_column=Column(no_wrap=True)
            ),
            progress.TaskProgressColumn(),
            Words("text"),
            progress.TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("", total=1.0, label=label, text="")

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def update(self, fraction: float, row: dict[str, Any]) -> None:
        self._scores = _scores(row) or self._scores
        text = f"step {row['step']}  {_describe(row, self._scores)}"
        self._bar.update(self._task, completed=min(fraction, 1.0), text=text)

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


def _describe(row: dict[str, Any], scores: str | None = None) -> str:
    parts = []
    if "loss" in row:
        parts.append(f"loss {row['loss']:.3f}")
        parts.append(f"{row['tokens'] / max(row['seconds'], 1e-9):,.0f} tokens/s")
    parts.append(_scores(row) if scores is None else scores)
    return "  ".join(filter(None, parts))


def _scores(row: dict[str, Any]) -> str:
    from .history import STEP_COLUMNS

    return "  ".join(f"{name} {v:.3f}" for name, v in row.items() if name not in STEP_COLUMNS)
