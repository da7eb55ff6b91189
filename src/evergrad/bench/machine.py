"""What a result depends on beside the code: the machine, the versions, and how busy it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import evergrad

#: Whose versions a result depends on: peers, and what runs them.
PACKAGES = ("numpy", "torch", "numba", "transformers", "llama-cpp-python", "onnxruntime")


def describe() -> dict[str, str]:
    """Facts about this machine and this installation, in words.

    Examples
    --------
    >>> list(describe())[:3]
    ['processor', 'memory', 'system']
    """
    return {
        "processor": _processor(),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "evergrad": f"{evergrad.__version__}, {_build()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def blas() -> str:
    """Which matrix product NumPy calls in this process; empty where threadpoolctl is missing."""
    try:
        import threadpoolctl
    except ImportError:
        return ""
    found = [lib for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    return ", ".join(
        f"{lib['internal_api']} {lib['version']}, {lib.get('architecture', '?')} kernels,"
        f" {lib['num_threads']} threads"
        for lib in found
    )


def _processor() -> str:
    fields = _fields("/proc/cpuinfo")
    name = fields.get("model name") or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} cores for this process{_caches()}"


def _caches() -> str:
    """Sizes as the first core sees them."""
    words = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = (
                (index / name).read_text().strip() for name in ("type", "level", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            words.append(f"L{level} {size}")
    return f"; {', '.join(words)}" if words else ""


def _memory() -> str:
    total = _fields("/proc/meminfo").get("MemTotal", "").split()
    return f"{int(total[0]) / 2**20:.0f} GiB" if total else "unknown"


def _fields(path: str) -> dict[str, str]:
    """The first of each ``name: value`` in a file of /proc."""
    found: dict[str, str] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def _build() -> str:
    config: dict[str, Any] = evergrad.show_config()
    facts = [config.get("backend"), config.get("isa"), config.get("compiler")]
    return ", ".join(str(fact) for fact in facts if fact)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
