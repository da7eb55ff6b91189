"""What people look at: results on standard output; progress, notes and errors beside it.

A module of its own, since `rich` takes a while to load: a verb that only echoes text, and whose
first word should come at once, does without.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def wrote(path: Path) -> None:
    """Where a picture or a page is."""
    err.print(f"wrote {path}", markup=False, soft_wrap=True)


def note(message: str) -> None:
    """A line of progress on standard error."""
    err.print(f"[dim]{escape(message)}[/dim]", soft_wrap=True)
