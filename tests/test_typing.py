"""What README, examples and docstrings show is well typed: `mypy --strict` has nothing to say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import evergrad

PACKAGE = Path(evergrad.__file__).parent
ROOT = Path(__file__).parent.parent
# What belongs to the command line is no library; a backend is called by the ops alone.
LEFT_OUT = re.compile(r"evergrad\.(cli|bench|backends|_native|__main__)\b")


def modules():
    for found in pkgutil.walk_packages(evergrad.__path__, "evergrad."):
        if not LEFT_OUT.match(found.name):
            yield importlib.import_module(found.name)


def examples():
    """Where it stands, and the code, of everything that is shown."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S
    )
    for number, block in enumerate(blocks):
        yield f"readme_{number}", block
    for path in (ROOT / "examples").glob("*.py"):
        yield path.stem, path.read_text()
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in modules():
        for test in finder.find(module, module.__name__):
            code = "".join(example.source for example in test.examples)
            # Whoever defines functions of their own annotates them.
            if code and not re.search(r"^\s*def ", code, flags=re.M):
                yield test.name.replace(".", "_"), f"{imports(module, code)}{code}"


def imports(module, code: str) -> str:
    """What the example finds in its module, as a user imports it."""
    names = set(re.findall(r"\b[A-Za-z_]\w*", code)) & set(vars(module))
    lines = ["import numpy as np\n"]
    for name in sorted(names - {"np"}):
        value = vars(module)[name]
        origin = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "")
        if inspect.ismodule(value):
            lines.append(f"import {origin} as {name}\n")
        elif origin.startswith("evergrad"):
            lines.append(f"from {origin} import {name}\n")
    return "".join(lines)


def test_what_is_shown_is_well_typed(tmp_path):
    pytest.importorskip("mypy", reason="mypy comes with the extra `dev`")
    for name, code in examples():
        (tmp_path / f"x_{name}.py").write_text(code)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert len(written) > 150
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", *written],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
