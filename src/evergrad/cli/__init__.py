"""The command line: ``evergrad VERB``, one file per verb.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 rejected by the gate, 130 interrupted.
"""

from __future__ import annotations

import sys

from ._lasting import lasting

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process, and exit."""
    try:
        with lasting():
            from ._app import run
        code = run(sys.argv[1:])
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in ("typer", "rich"):
            raise
        sys.exit(f"evergrad: the command line needs {name}: pip install 'evergrad[cli]'")
    sys.exit(code)
