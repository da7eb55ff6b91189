"""Rows of a table by index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import COLUMNS, ROWS, bounds, kernel, pieces, present

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


@kernel
def _embedding_sum_kernel(
    out: Array,
    input: Array,
    weight: Array,
    positions: Array,
    position_weight: Array,
    segments: Array,
    segment_weight: Array,
) -> None:
    rows, n = out.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        for r in range(lo, hi):
            y, token, position = out[r], weight[input[r]], position_weight[positions[r]]
            for j in range(n):
                y[j] = token[j] + position[j]
            if segments.size > 0:
                segment = segment_weight[segments[r]]
                for j in range(n):
                    y[j] += segment[j]


def embedding_sum(
    input: Array,
    weight: Array,
    positions: Array,
    position_weight: Array,
    segments: Array | None,
    segment_weight: Array | None,
    out: Array | None,
) -> Array:
    """out[i] = weight[input[i]] + position_weight[positions[i]] + segment_weight[segments[i]]."""
    if out is None:
        out = np.empty((input.size, weight.shape[1]), np.float32)
    if segments is None:
        segments = np.empty(0, np.int64)
    _embedding_sum_kernel(
        out, input, weight, positions, position_weight, segments, present(segment_weight, 2)
    )
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
