"""``evergrad rollback``: make an earlier version current."""

from __future__ import annotations

from typing import Annotated

import typer

from evergrad.continual import StoreError, VersionStore

from . import _options as options
from ._output import JsonOption, print_json
from ._screen import out
from ._verb import verb

EXAMPLES = (
    "evergrad rollback --store run",
    "evergrad rollback --store run --to 0003",
)


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, rollback, EXAMPLES)


def rollback(
    store: options.StoreOption = options.DEFAULT_STORE,
    to: Annotated[
        str | None,
        typer.Option(help="An accepted version; by default the one the current came from."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an earlier version current again.

    Nothing is deleted, so the way forward again is [bold]--to[/bold]. The version is checked
    against its checksums first.
    """
    opened = VersionStore(store)
    try:
        before = opened.current().name
    except StoreError:  # a pointer that is lost or damaged is what --to is for
        before = None
    version = opened.rollback(to)
    if as_json:
        print_json({"store": store, "before": before, "current": version.name})
    else:
        out.print(f"Version {version.name} is current (before: {before or 'none'}).")
