"""Build of the native module: ordinary sources once, the kernels once per ISA.

Everything static about the package stands in pyproject.toml. This file only says which flags each
ISA is compiled with, and compiles the objects in parallel, skipping those that are up to date.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

try:
    from pybind11.setup_helpers import Pybind11Extension
except ImportError:  # pragma: no cover - pip installs the build requirements first
    sys.exit("building evergrad needs pybind11: pip install pybind11")

CSRC = Path("csrc")

#: Flags of every unit. No fast-math: NaN and the order of sums are part of the contract.
#: -ffp-contract=off keeps a * b + c two roundings unless the source says fma, in every compiler.
COMMON_FLAGS = [
    "-std=c++17",
    "-O3",
    "-Wall",
    "-Wextra",
    "-fopenmp",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-lto",
]

#: The kernels are compiled once for each of these; which one runs is decided at import.
ISA_FLAGS: dict[str, list[str]] = {"scalar": ["-fno-tree-vectorize"]}
if platform.machine().lower() in ("x86_64", "amd64"):
    ISA_FLAGS["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    ISA_FLAGS["avx512"] = [
        "-mavx512f",
        "-mavx512dq",
        "-mavx512bw",
        "-mavx512vl",
        "-mfma",
        "-mf16c",
        "-mprefer-vector-width=512",
    ]
elif platform.machine().lower() in ("aarch64", "arm64"):
    ISA_FLAGS["neon"] = []


def include_dirs() -> list[str]:
    return [str(CSRC), str(CSRC / "include")]


def sanitizers() -> list[str]:
    """EVERGRAD_SANITIZE=address,undefined builds a module for `make sanitize`."""
    kinds = os.environ.get("EVERGRAD_SANITIZE")
    return [f"-fsanitize={kinds}", "-fno-sanitize-recover=all", "-g", "-O1"] if kinds else []


def suffix() -> str:
    return "-sanitize" if sanitizers() else ""


def wanted() -> bool:
    """EVERGRAD_NATIVE=0 leaves the native module out: for machines without a compiler."""
    value = os.environ.get("EVERGRAD_NATIVE") or "1"
    if value not in ("0", "1"):
        sys.exit(f"EVERGRAD_NATIVE: expected 0 or 1, got {value!r}")
    return value == "1"


#: A missing compiler is an error: who installs without the kernels should know that they do.
REMEDY = (
    "evergrad's kernels could not be built with {compiler}: {why}. They need g++, or clang++ with"
    " its OpenMP library (CXX chooses). EVERGRAD_NATIVE=0 installs without them: Numba, where it is"
    " installed, or NumPy then computes everything, and much slower."
)


class build_native(build_ext):
    """Compile each source to an object, in parallel; relink when one of them is newer."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        """Build it, or say what is missing and what there is instead."""
        command = self.compiler.compiler_cxx[0]
        if shutil.which(command) is None:
            sys.exit(REMEDY.format(compiler=command, why="there is no such program"))
        try:
            self.build(ext)
        except (CompileError, LinkError) as error:
            raise type(error)(
                REMEDY.format(compiler=command, why="its messages are above")
            ) from error

    def build(self, ext: Pybind11Extension) -> None:
        sources = [(Path(s), list(ext.extra_compile_args)) for s in ext.sources]
        sources += [
            (CSRC / "isa" / f"{isa}.cpp", COMMON_FLAGS + flags) for isa, flags in ISA_FLAGS.items()
        ]
        newest_header = max(
            p.stat().st_mtime for p in [*CSRC.rglob("*.h"), Path(__file__)] if p.is_file()
        )
        macros = ext.define_macros + [(f"EVERGRAD_HAVE_{isa.upper()}", "1") for isa in ISA_FLAGS]

        # Kept between builds, pip's temporary ones included, and apart for each compiler.
        compiler = Path(self.compiler.compiler_cxx[0]).name
        cache = Path("build") / f"objects-{sys.implementation.cache_tag}-{compiler}{suffix()}"

        def compile_one(job: tuple[Path, list[str]]) -> str:
            source, flags = job
            target = cache / source.with_suffix(".o")
            newest = max(newest_header, source.stat().st_mtime)
            if not (target.exists() and target.stat().st_mtime > newest):
                self.compiler.compile(
                    [str(source)],
                    output_dir=str(cache),
                    macros=macros,
                    include_dirs=ext.include_dirs,
                    extra_postargs=flags + sanitizers(),
                )
            return str(target)

        # The source that knows OpenMP by itself: where that is missing, it is told in seconds.
        sources.sort(key=lambda job: job[0] != CSRC / "runtime" / "parallel.cpp")
        objects = [compile_one(sources[0])]
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as workers:
            try:
                objects += workers.map(compile_one, sources[1:])
            except BaseException:
                workers.shutdown(cancel_futures=True)  # whoever waits need not wait for them all
                raise
        target = self.get_ext_fullpath(ext.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            objects,
            target,
            libraries=self.get_libraries(ext),
            library_dirs=ext.library_dirs,
            runtime_library_dirs=ext.runtime_library_dirs,
            extra_postargs=["-fopenmp", *(sanitizers() or ["-Wl,--exclude-libs,ALL", "-s"])],
            target_lang="c++",
        )


if __name__ == "__main__":
    native_sources = sorted(
        str(p) for room in ("runtime", "ops", "bindings") for p in (CSRC / room).glob("*.cpp")
    )
    native = Pybind11Extension(
        "evergrad._native",
        native_sources,
        include_dirs=include_dirs(),
        extra_compile_args=COMMON_FLAGS,
        cxx_std=0,
    )
    setup(ext_modules=[native] if wanted() else [], cmdclass={"build_ext": build_native})
