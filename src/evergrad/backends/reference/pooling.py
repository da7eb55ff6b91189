"""One vector for each sequence of a packed batch."""

from __future__ import annotations

import numpy as np

from ._common import Array, emit, ieee


@ieee
def pool(x: Array, cu_seqlens: Array, mode: str, out: Array | None) -> Array:
    """x [total, n] -> [sequences, n]: the mean of each sequence's rows, or its first row.

    Sequence s is rows cu_seqlens[s] to cu_seqlens[s + 1]; one without rows gives zeros.
    """
    pooled = np.zeros((len(cu_seqlens) - 1, x.shape[1]), x.dtype)
    for s in range(len(pooled)):
        begin, end = cu_seqlens[s : s + 2]
        if begin < end:
            pooled[s] = x[begin:end].mean(axis=0) if mode == "mean" else x[begin]
    return emit(pooled, out)


# mean: out_s = sum of x_i / length  =>  dx_i = dout_s / length for each row i of sequence s.
@ieee
def pool_backward(dout: Array, cu_seqlens: Array, mode: str, dx: Array | None) -> Array:
    """dout [sequences, n] -> dx [total, n]."""
    grad = np.zeros((cu_seqlens[-1], dout.shape[1]), dout.dtype)
    for d, begin, end in zip(dout, cu_seqlens[:-1], cu_seqlens[1:], strict=True):
        if mode == "mean":
            grad[begin:end] = d / max(end - begin, 1)
        elif begin < end:
            grad[begin] = d
    return emit(grad, dx)
