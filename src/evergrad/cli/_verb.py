"""How a verb joins the command line: its docstring becomes the help, with examples below."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import typer


def verb(
    app: typer.Typer,
    function: Callable[..., None],
    examples: Sequence[str],
    name: str | None = None,
) -> None:
    """Add ``function`` to the command line."""
    app.command(name=name, help=unwrapped(function.__doc__ or ""), epilog=listed(examples))(
        function
    )


def unwrapped(docstring: str) -> str:
    """One line per paragraph, so that the terminal decides where lines break."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def listed(examples: Sequence[str], title: str = "Examples") -> str:
    """A heading, and a line per example."""
    return "\n".join([f"[bold]{title}[/bold]", *(f"  {_literal(line)}" for line in examples)])


def _literal(line: str) -> str:
    """Text that holds no markup, whatever its brackets."""
    if "[" not in line:  # and none does: `rich` need not be loaded
        return line
    from rich.markup import escape

    return escape(line)
