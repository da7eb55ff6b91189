"""One vector for each sequence of a packed batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import kernel
from ._math import ONE, ZERO

Array = NDArray[Any]


@kernel
def _pool_kernel(x: Array, cu_seqlens: Array, mean: bool, out: Array) -> None:
    sequences, n = out.shape
    for s in prange(sequences):
        begin, end = cu_seqlens[s], cu_seqlens[s + 1]
        sums = np.zeros(n, np.float32)
        last = end if mean else min(end, begin + 1)
        for i in range(begin, last):
            row = x[i]
            for j in range(n):
                sums[j] += row[j]
        scale = ONE / np.float32(max(last - begin, 1))
        for j in range(n):
            out[s, j] = sums[j] * scale


def pool(x: Array, cu_seqlens: Array, mode: str, out: Array | None) -> Array:
    """x [total, n] -> [sequences, n]: the mean of each sequence's rows, or its first row."""
    if out is None:
        out = np.empty((cu_seqlens.size - 1, x.shape[1]), np.float32)
    _pool_kernel(x, cu_seqlens, mode == "mean", out)
    return out


@kernel
def _pool_backward_kernel(dx: Array, cu_seqlens: Array, mean: bool, dout: Array) -> None:
    sequences, n = dout.shape
    for s in prange(sequences):
        begin, end = cu_seqlens[s], cu_seqlens[s + 1]
        scale = ONE / np.float32(max(end - begin, 1)) if mean else ONE
        for i in range(begin, end):
            row, used = dx[i], mean or i == begin
            for j in range(n):
                row[j] = dout[s, j] * scale if used else ZERO


def pool_backward(dout: Array, cu_seqlens: Array, mode: str, dx: Array | None) -> Array:
    """dout [sequences, n] -> dx [total, n]."""
    if dx is None:
        dx = np.empty((cu_seqlens[-1], dout.shape[1]), np.float32)
    _pool_backward_kernel(dx, cu_seqlens, mode == "mean", dout)
    return dx
