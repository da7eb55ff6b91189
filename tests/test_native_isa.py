"""The kernels of each ISA against the scalar ones, in native programs built from ``csrc/tests``.

They see what Python cannot: single operations of ``Vec``, errors in ULP, stray reads and writes,
and ISAs that this machine lacks, under emulation.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKS = Path(__file__).parents[1] / "csrc" / "tests"
CXX = os.environ.get("CXX", "g++")


def require(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def require_compilation(source: str, *flags: str, reason: str) -> None:
    command = [CXX, "-x", "c++", *flags, "-o", os.devnull, "-"]
    if subprocess.run(command, input=source, text=True, capture_output=True).returncode != 0:
        pytest.skip(reason)


def run_checks(target: str, build: Path) -> None:
    command = ["make", "-C", str(CHECKS), f"-j{os.cpu_count() or 1}", "--output-sync"]
    result = subprocess.run(
        [*command, f"BUILD={build}", f"CXX={CXX}", target], text=True, capture_output=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    summaries = re.findall(r"^(\d+) passed, (\d+) failed$", result.stdout, re.MULTILINE)
    assert summaries
    assert all(int(passed) > 0 and failed == "0" for passed, failed in summaries)


def test_native(tmp_path: Path) -> None:
    require("make", CXX)
    run_checks("check-native", tmp_path)


def test_native_under_sanitizers(tmp_path: Path) -> None:
    require("make", CXX)
    require_compilation(
        "int main() {}", "-fsanitize=address,undefined", reason="the sanitizers are not installed"
    )
    run_checks("check-sanitize", tmp_path)


def test_neon_under_qemu(tmp_path: Path) -> None:
    require("make", "aarch64-linux-gnu-g++", "qemu-aarch64")
    run_checks("check-neon", tmp_path)


def test_avx512_emulated_on_avx2(tmp_path: Path) -> None:
    require("make", "objdump", CXX)
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists() or " avx2 " not in cpu.read_text():
        pytest.skip("this machine has no AVX2 to emulate AVX-512 on")
    require_compilation(
        "#include <simde/x86/avx512.h>\nint main() {}",
        "-mavx2",
        "-mfma",
        reason="SIMDe (libsimde-dev) is not installed",
    )
    run_checks("check-avx512-emulated", tmp_path)
