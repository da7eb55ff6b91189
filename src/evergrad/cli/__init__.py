"""The command line: ``evergrad VERB``, one file per verb.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 rejected by the gate, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from ._lasting import lasting

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process, and exit."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        # A character that the locale lacks is no reason to end; standard error does the same.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with lasting():
            from ._app import run
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before there was anything of the command
        print("evergrad: interrupted", file=sys.stderr)
        code = 130
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in ("typer", "rich"):
            raise
        sys.exit(f"evergrad: the command line needs {name}: pip install 'evergrad[cli]'")
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Its reader is gone, or its disk full. Python would try once more as it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    sys.exit(code)
