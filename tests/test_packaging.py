"""What is handed on: a source distribution that builds, and an installation without a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools")
pytest.importorskip("pybind11")

ROOT = Path(__file__).parent.parent
#: What setup.py and the metadata read.
SOURCES = (
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md",
    "pyproject.toml", "setup.py",
)  # fmt: skip
FOLDERS = ("benchmarks", "csrc", "docs", "examples", "src", "tests")
LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.so", "*.o", "*.egg-info", ".*", "build")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The sources by themselves, so that nothing is written among them."""
    place = tmp_path_factory.mktemp("packaging") / "evergrad"
    place.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, place)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, place / name, ignore=LEFTOVERS)
    return place


def setup(checkout, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_source_distribution_holds_what_it_is_built_and_tested_from(checkout, tmp_path):
    given = files(checkout)
    run = setup(checkout, "egg_info", "--egg-base", tmp_path, "sdist", "--dist-dir", tmp_path)
    assert run.returncode == 0, run.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    assert "csrc/include/evergrad/evergrad.h" in given
    assert given <= held
