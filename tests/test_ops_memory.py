"""No byte outside an array is touched: each one ends right before a page that may not be read.

A crash is the failure, so the calls run in a child process that names the case it is at.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from op_support import BACKENDS, CASES, SEED, exact_and_naive, using

PAGE = mmap.PAGESIZE
PROT_NONE = 0


class Guarded:
    """Copies of arrays, each flush against the page behind it (or, `before`, the one in front)."""

    def __init__(self, before: bool) -> None:
        self.before = before
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.maps: list[mmap.mmap] = []

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray) or not value.flags.c_contiguous:
            return value
        pages = -(-value.nbytes // PAGE)
        region = mmap.mmap(-1, (pages + 2) * PAGE)
        self.maps.append(region)
        start = ctypes.addressof(ctypes.c_char.from_buffer(region))
        for guard in (start, start + (pages + 1) * PAGE):
            assert self.libc.mprotect(ctypes.c_void_p(guard), PAGE, PROT_NONE) == 0
        offset = PAGE if self.before else (pages + 1) * PAGE - value.nbytes
        inside = np.frombuffer(region, value.dtype, value.size, offset).reshape(value.shape)
        inside[...] = value
        return inside


def main(backend: str) -> None:
    with using(backend):
        for case in CASES:
            if case.dims is case.op.large:
                continue
            problem, dout, *_ = exact_and_naive(case)
            for before in (False, True):
                print(case.id, "before" if before else "behind", flush=True)
                guard = Guarded(before)
                args = {name: guard(value) for name, value in problem.args.items()}
                inside = problem.with_args(**args)
                outputs = {name: guard(value) for name, value in inside.forward().items()}
                inside.forward(**outputs)
                if dout is not None:
                    grads = inside.backward(outputs, guard(dout))
                    # Only buffers that backward has a parameter for are bound.
                    buffers = {name: guard(grad) for name, grad in grads.items()}
                    inside.backward(outputs, guard(dout), **buffers)


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "reference"])
def test_nothing_outside_is_touched(backend: str) -> None:
    child = subprocess.run(
        [sys.executable, __file__, backend],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "EVERGRAD_SEED": str(SEED)},
    )
    last = child.stdout.rstrip().rpartition("\n")[2]
    assert child.returncode == 0, f"exit {child.returncode} at {last}\n{child.stderr[-2000:]}"


if __name__ == "__main__":
    main(sys.argv[1])
