"""The stub of the native module: write it, or check that the committed one is up to date.

python tests/stub.py --write
python tests/stub.py --check
"""

from __future__ import annotations

import difflib
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).parent.parent / "src" / "evergrad" / "_native.pyi"


def generated() -> str:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pybind11_stubgen", "evergrad._native", "-o", folder],
            check=True,
            capture_output=True,
            text=True,
        )
        return (Path(folder) / "evergrad" / "_native.pyi").read_text()


def main() -> int:
    new = generated()
    if "--write" in sys.argv:
        STUB.write_text(new)
        return 0
    old = STUB.read_text() if STUB.exists() else ""
    diff = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "committed", "generated"))
    print("\n".join(diff) or "the stub is up to date")
    return 1 if diff else 0


if __name__ == "__main__":
    sys.exit(main())
