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


def run_setup(checkout, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "EVERGRAD_NATIVE": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_source_distribution_holds_what_it_is_built_and_tested_from(checkout, tmp_path):
    given = files(checkout)
    run = run_setup(checkout, "egg_info", "--egg-base", tmp_path, "sdist", "--dist-dir", tmp_path)
    assert run.returncode == 0, run.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    assert "csrc/include/evergrad/evergrad.h" in given
    assert given <= held


@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        ("no-such-compiler", "there is no such program"),
        (shutil.which("false"), "messages are above"),
    ],
)
def test_without_a_compiler_the_build_says_what_is_missing(checkout, tmp_path, compiler, why):
    run = run_setup(checkout, "build_ext", "--build-lib", tmp_path, CXX=compiler)
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert f"could not be built with {compiler}: " in last
    assert why in last
    assert "EVERGRAD_NATIVE=0" in last


def test_openmp_is_missed_before_all_else_is_compiled(checkout, tmp_path):
    compiler = tmp_path / "clang++"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho no omp.h >&2\nexit 1\n')
    compiler.chmod(0o755)
    run = run_setup(checkout, "build_ext", "--build-lib", tmp_path, CXX=str(compiler))
    assert run.returncode == 1
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert "runtime/parallel.cpp" in call
    assert run.stderr.splitlines()[0] == "no omp.h"


def test_without_kernels_on_demand(checkout, tmp_path):
    run = run_setup(
        checkout, "build", "--build-base", tmp_path, CXX="no-such-compiler", EVERGRAD_NATIVE="0"
    )
    assert run.returncode == 0, run.stderr
    code = "import evergrad; c = evergrad.show_config(); print(c['backend'], c['notes'])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "lib"), "EVERGRAD_BACKEND": "reference"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    tag = sys.implementation.cache_tag
    missing = f"native kernels are missing (no compiled module for {tag} is installed)"
    assert run.stdout.strip() == f"reference ['{missing}; expect to be much slower']"


def test_a_choice_of_kernels_that_is_none(checkout):
    run = run_setup(checkout, "build", EVERGRAD_NATIVE="off")
    assert run.returncode == 1
    assert run.stderr.strip() == "EVERGRAD_NATIVE: expected 0 or 1, got 'off'"
