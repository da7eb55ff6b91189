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
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f"evergrad: the command line needs {error.name}: pip install 'evergrad[cli]'")
    sys.exit(run(sys.argv[1:]))
