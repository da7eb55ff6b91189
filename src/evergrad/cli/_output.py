"""What every verb shares: exit codes, one-line errors, results for machines.

Standard output carries the result alone, with ``--json`` exactly one JSON object (`chat`: one a
line for each reply); progress, notes and errors go to standard error.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

OK, FAILURE, USAGE, REJECTED, INTERRUPTED = 0, 1, 2, 3, 130


class UserError(Exception):
    """Something to put right on the command line or in the input: one line, no traceback."""


JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object on standard output and nothing else there.",
        rich_help_panel="Output",
    ),
]


def print_json(value: Mapping[str, Any], indent: int | None = 2) -> None:
    """One JSON object on standard output; NaN and infinities, which JSON lacks, become null.

    Without an indent it is a single line. What standard output cannot encode is escaped as JSON
    does: characters, or the bytes of a path that is no text.
    """
    plain = _plain(value)
    written = json.dumps(plain, indent=indent, ensure_ascii=False)
    try:
        written.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        written = json.dumps(plain, indent=indent)
    typer.echo(written)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
