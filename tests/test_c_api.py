"""The C API from a C program, linked with the objects that the native module was made of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CC, CXX = os.environ.get("CC", "gcc"), os.environ.get("CXX", "g++")
CSRC = ROOT / "csrc"
OBJECTS = ROOT / "build" / f"objects-{sys.implementation.cache_tag}-{Path(CXX).name}" / "csrc"
STRICT = ["-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{CSRC / 'include'}"]


@pytest.mark.parametrize("standard", ["c99", "c11", "c++11", "c++17"])
def test_the_header_stands_alone(standard: str) -> None:
    compiler, language = (CXX, "c++") if "+" in standard else (CC, "c")
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    subprocess.run(
        [compiler, f"-std={standard}", *STRICT, "-fsyntax-only", f"-x{language}", "-"],
        input='#include "evergrad/evergrad.h"\nint main(void) { return EVERGRAD_OK; }\n',
        text=True,
        check=True,
    )


def test_a_c_program(tmp_path: Path) -> None:
    for program in (CC, CXX):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    sources = [s for room in ("runtime", "ops", "isa") for s in (CSRC / room).glob("*.cpp")]
    objects = [OBJECTS / source.relative_to(CSRC).with_suffix(".o") for source in sources]
    objects = [str(path) for path in objects if path.exists()]  # there are ISAs of other processors
    if not objects:
        pytest.skip(f"the native module was not built here with {CXX}")
    unit, program = str(tmp_path / "check.o"), str(tmp_path / "check")
    source = str(CSRC / "tests" / "capi_check.c")
    subprocess.run([CC, "-std=c11", *STRICT, "-c", source, "-o", unit], check=True)
    subprocess.run([CXX, "-fopenmp", unit, *objects, "-o", program], check=True)
    child = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stdout
    assert child.stdout.endswith(" passed, 0 failed\n")
