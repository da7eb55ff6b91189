"""Numba keeps compiled kernels on disk: what happens to those files is no concern of an op."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import evergrad
from op_support import succeeds

pytestmark = pytest.mark.skipif(
    "numba" not in evergrad.available_backends(), reason="Numba is not installed"
)

# A module, as a kernel needs a file to be kept for.
KERNEL = """
from evergrad.backends.numba._kernel import kernel

@kernel
def double(x):
    for i in range(x.size):
        x[i] *= 2
"""
DOUBLED = """
import numpy as np
from doubling import double
x = np.ones(3, np.float32)
double(x)
print(x.tolist())
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Double something in a fresh process that keeps its kernels in a folder of its own."""
    (tmp_path / "doubling.py").write_text(KERNEL)

    def run(before: str = "") -> str:
        path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        return succeeds(path + before + DOUBLED, NUMBA_CACHE_DIR=str(tmp_path / "cache"))

    return run


def kept(tmp_path: Path, suffix: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (tmp_path / "cache").rglob(f"*{suffix}")}


def test_kernels_are_kept(tmp_path: Path, run: Callable[..., str]) -> None:
    assert run() == "[2.0, 2.0, 2.0]"
    first = {path: Path(path).stat().st_mtime_ns for path in kept(tmp_path, ".nbc")}
    assert len(first) == 1
    assert run() == "[2.0, 2.0, 2.0]"
    assert {path: Path(path).stat().st_mtime_ns for path in kept(tmp_path, ".nbc")} == first


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"], ids=["index", "data"])
@pytest.mark.parametrize("rest", [b"", b"no pickle", None], ids=["empty", "other", "cut"])
def test_a_broken_file_is_written_anew(
    suffix: str, rest: bytes | None, tmp_path: Path, run: Callable[..., str]
) -> None:
    run()
    ((path, whole),) = kept(tmp_path, suffix).items()
    Path(path).write_bytes(whole[: len(whole) // 2] if rest is None else rest)
    assert run() == "[2.0, 2.0, 2.0]"
    ((_, again),) = kept(tmp_path, suffix).items()
    assert len(again) > len(whole) // 2


def test_a_full_disk(tmp_path: Path, run: Callable[..., str]) -> None:
    """As a limit on the size of files, which asks for no disk and no rights."""
    full = """
import resource, signal
import doubling
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""
    assert run(full) == "[2.0, 2.0, 2.0]"


def test_a_folder_that_goes_away(tmp_path: Path, run: Callable[..., str]) -> None:
    away = f"""
import pathlib, shutil
import doubling
cache = pathlib.Path({str(tmp_path / "cache")!r})
shutil.rmtree(cache)
cache.write_text("not a folder")
"""
    assert run(away) == "[2.0, 2.0, 2.0]"
