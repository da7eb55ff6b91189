"""How kernels are compiled, split over threads, and called.

A kernel is a loop over fixed pieces of its arrays: stretches of CHUNK elements, blocks of ROWS rows
or of COLUMNS columns. The pieces depend on the shapes alone, and partial sums of pieces are added
in their order, so the bits of a result do not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import njit, prange
from numba.core.caching import FunctionCache
from numpy.typing import NDArray

from .. import _threads

CHUNK = 1024
ROWS = 16
COLUMNS = 64
_PARALLEL_SIZE = 1 << 15  # elements; below, waking threads costs more than the work

# fma may replace a product and a sum. Sums in kernels may be split over vector lanes as well, which
# the formulas in `inline` functions (argument reduction, say) would not survive. NaN, infinities
# and division keep their IEEE meaning in both.
_inline = njit(fastmath={"contract"}, error_model="numpy", forceinline=True)
_OPTIONS: dict[str, Any] = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy"}


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a helper into each kernel that calls it."""
    return _inline(function)


def _sources_digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


# Numba's cache on disk goes by a function's name and its own file. It would keep a kernel whose
# helpers in another file have changed, and mix up two forms of one function: so both are named.
_DIGEST = _sources_digest()


class _Cache(FunctionCache):
    """Numba's cache on disk, which may save time and must not cost an op.

    Numba lets out whatever a full or read-only disk and files that were cut short come to.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # unpickling broken bytes ends in nearly any of them
            with contextlib.suppress(OSError):
                self.flush()  # saving would read the broken index first
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)


def _compiled(function: Callable[..., Any], form: str) -> Callable[..., Any]:
    copy = types.FunctionType(function.__code__, function.__globals__)
    copy.__qualname__ = f"{function.__qualname__}_{form}_{_DIGEST}"
    dispatcher = njit(parallel=form == "parallel", **_OPTIONS)(copy)
    with contextlib.suppress(RuntimeError):  # nowhere to write: compile in every process
        dispatcher._cache = _Cache(copy)  # what enable_caching does
    return dispatcher


_pool = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def get_num_threads() -> int:
    """Threads that a kernel may use: the number told to evergrad, else Numba's own."""
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    return numba.get_num_threads() if _threads.wanted is None else min(_threads.wanted, most)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop over pieces twice, with and without threads; each when first needed.

    The size of the first argument decides. Numba's thread pools need not allow two callers at once,
    hence the lock; nor do they survive a fork, so a child works alone.
    """
    parallel, serial = _compiled(function, "parallel"), _compiled(function, "serial")

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        if args[0].size < _PARALLEL_SIZE or _forked:
            return serial(*args)
        with _pool:
            before = numba.get_num_threads()  # of this thread of Python; perhaps its owner's wish
            numba.set_num_threads(get_num_threads())
            try:
                return parallel(*args)
            finally:
                numba.set_num_threads(before)

    return run


def present(x: NDArray[Any] | None, ndim: int) -> NDArray[Any]:
    """`x`, or an empty array for None: one compiled form serves both, and tests the size."""
    return np.empty((0,) * ndim, np.float32) if x is None else x


def memory(x: NDArray[Any]) -> NDArray[Any]:
    """The memory from the first to the last number of a strided array, [length].

    Numba makes vector code of loops over it, and one compiled form for any strides.
    """
    if x.size == 0:
        return np.empty(0, np.float32)
    length = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)) // 4
    return np.lib.stride_tricks.as_strided(x, (length,), (4,), writeable=x.flags.writeable)


@inline
def pieces(size: int, piece: int) -> int:
    """How many pieces cover `size`."""
    return (size + piece - 1) // piece


@inline
def bounds(index: int, size: int, piece: int) -> tuple[int, int]:
    """Where piece `index` begins and ends."""
    return index * piece, min(size, (index + 1) * piece)


# A loop becomes vector code only if LLVM can tell that its output overlaps no input, and callers
# may work in place. So kernels compute into a scratch stretch, which stays in L1, and copy it out.
# LLVM may still test at run time whether the scratch begins close behind the input, and then take a
# scalar loop: elements come out the same, a sum does not. So a loop that adds up stores nothing.
@inline
def store(scratch: NDArray[Any], out: NDArray[Any]) -> None:
    for j in range(scratch.size):
        out[j] = scratch[j]


@inline
def store_product(scratch: NDArray[Any], factor: NDArray[Any], out: NDArray[Any]) -> None:
    """out = scratch * factor; `out` may be `factor`."""
    for j in range(scratch.size):
        scratch[j] *= factor[j]
    store(scratch, out)


def partial_sums(rows: int, n: int, wanted: bool) -> NDArray[Any]:
    """Room for the sums by row block [blocks, n]; empty unless wanted."""
    return np.empty((-(-rows // ROWS) if wanted else 0, n), np.float32)


@kernel
def _add_partials(partials: NDArray[Any], total: NDArray[Any]) -> None:
    """total[n] += the rows of partials[blocks, n], in order."""
    blocks, n = partials.shape
    for piece in prange(pieces(n, COLUMNS)):
        lo, hi = bounds(piece, n, COLUMNS)
        sums = total[lo:hi]
        for b in range(blocks):
            row = partials[b, lo:hi]
            for j in range(hi - lo):
                sums[j] += row[j]


def accumulate(partials: NDArray[Any], total: NDArray[Any] | None) -> NDArray[Any]:
    """Add the partial sums [blocks, n] to `total` [n], zeros unless given."""
    if total is None:
        total = np.zeros(partials.shape[1], np.float32)
    _add_partials(partials, total)
    return total
