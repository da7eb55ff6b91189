"""Nothing leaves a kernel unit but its table.

A weak function compiled with AVX-512 may be the copy that the linker keeps for everybody, and then
kill the program on a machine without it; an initialiser runs before the CPU has been asked.
"""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pybind11", reason="setup.py, which knows the flags, needs pybind11")

ROOT = Path(__file__).parents[1]
SETUP = runpy.run_path(str(ROOT / "setup.py"), run_name="flags")
COMMON_FLAGS: list[str] = SETUP["COMMON_FLAGS"]
ISA_FLAGS: dict[str, list[str]] = SETUP["ISA_FLAGS"]

#: What a compiler may call in place of a loop.
ALLOWED_UNDEFINED = {"memcpy", "memmove", "memset", "_GLOBAL_OFFSET_TABLE_"}

CASES = [
    *(
        (compiler, isa, flags)
        for compiler in ("g++", "clang++")
        for isa, flags in ISA_FLAGS.items()
    ),
    ("aarch64-linux-gnu-g++", "neon", []),
]


@pytest.mark.parametrize(
    ("compiler", "isa", "flags"), CASES, ids=[f"{compiler}-{isa}" for compiler, isa, _ in CASES]
)
def test_only_the_table_leaves_the_unit(
    compiler: str, isa: str, flags: list[str], tmp_path: Path
) -> None:
    for program in (compiler, "nm", "objdump"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    unit = tmp_path / f"{isa}.o"
    source = ROOT / "csrc" / "isa" / f"{isa}.cpp"
    include = f"-I{ROOT / 'csrc'}"
    subprocess.run(
        [compiler, *COMMON_FLAGS, *flags, "-fPIC", include, "-c", str(source), "-o", str(unit)],
        check=True,
    )

    listing = subprocess.run(
        ["nm", "--format=posix", str(unit)], check=True, text=True, capture_output=True
    ).stdout
    symbols = [line.split()[:2] for line in listing.splitlines()]
    assert {name for name, kind in symbols if kind.isupper() and kind != "U"} == {
        f"evergrad_kernels_{isa}"
    }
    assert not [name for name, kind in symbols if kind in "VvWwu"]
    assert {name for name, kind in symbols if kind == "U"} <= ALLOWED_UNDEFINED
    assert not [name for name, _ in symbols if name.startswith("_GLOBAL__sub_I")]

    sections = subprocess.run(
        ["objdump", "-h", str(unit)], check=True, text=True, capture_output=True
    ).stdout
    assert not [name for name in (".init_array", ".ctors", ".text.startup") if name in sections]
