"""Rows of a table by index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import COLUMNS, ROWS, bounds, kernel, pieces

Array = NDArray[Any]


@kernel
def _embedding_kernel(out: Array, indices: Array, weight: Array, accumulate: bool) -> None:
    rows, n = out.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        for r in range(lo, hi):
            y, row = out[r], weight[indices[r]]
            if accumulate:
                for j in range(n):
                    y[j] += row[j]
            else:
                for j in range(n):
                    y[j] = row[j]


def embedding(indices: Array, weight: Array, accumulate: bool, out: Array | None) -> Array:
    """out[i] = weight[indices[i]] (+= with `accumulate`);  indices [n], out [n, dim]."""
    accumulate = accumulate and out is not None
    if out is None:
        out = np.empty((indices.size, weight.shape[1]), np.float32)
    _embedding_kernel(out, indices, weight, accumulate)
    return out


# Every piece of columns sees the tokens in their order: no two threads add to one element.
@kernel
def _embedding_backward_kernel(dout: Array, indices: Array, dweight: Array) -> None:
    rows, n = dout.shape
    for b in prange(pieces(n, COLUMNS)):
        lo, hi = bounds(b, n, COLUMNS)
        for r in range(rows):
            total, d = dweight[indices[r], lo:hi], dout[r, lo:hi]
            for j in range(hi - lo):
                total[j] += d[j]


def embedding_backward(
    dout: Array, indices: Array, num_embeddings: int, dweight: Array | None
) -> Array:
    """dweight[indices[i]] += dout[i];  dout [n, dim], dweight [num_embeddings, dim]."""
    if dweight is None:
        dweight = np.zeros((num_embeddings, dout.shape[1]), np.float32)
    _embedding_backward_kernel(dout, indices, dweight)
    return dweight
