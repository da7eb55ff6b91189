"""Softmax and its logarithm over rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import ROWS, bounds, inline, kernel, pieces, store
from ._math import ONE, ZERO, exp, from_ordered, ordered

Array = NDArray[Any]

_MINUS_INF = np.float32(-np.inf)


@inline
def peak(x: Array) -> float:
    """The largest entry, but 0 if that is -inf: exp(x - peak) then sums to 0 rather than NaN."""
    key = ordered(_MINUS_INF)
    for j in range(x.size):
        key = max(key, ordered(x[j]))
    largest = from_ordered(key)
    return ZERO if largest == _MINUS_INF else largest


@kernel
def _softmax_kernel(x: Array, out: Array) -> None:
    rows, n = x.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        y = np.empty(n, np.float32)
        for r in range(lo, hi):
            row = x[r]
            top = peak(row)
            total = ZERO
            for j in range(n):
                y[j] = exp(row[j] - top)
            for j in range(n):
                total += y[j]
            scale = ZERO if total == ZERO else ONE / total
            for j in range(n):
                y[j] *= scale
            store(y, out[r])


def softmax(x: Array, out: Array | None) -> Array:
    """y_j = exp(x_j - max x) / sum_k exp(x_k - max x);  x, y [..., n], not empty.

    A row that is all -inf gives zeros.
    """
    if out is None:
        out = np.empty_like(x)
    n = x.shape[-1]
    _softmax_kernel(x.reshape(-1, n), out.reshape(-1, n))
    return out


@kernel
def _softmax_backward_kernel(dout: Array, out: Array, dx: Array) -> None:
    rows, n = dout.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        d = np.empty(n, np.float32)
        for r in range(lo, hi):
            dy, y = dout[r], out[r]
            dot = ZERO
            for j in range(n):
                dot += dy[j] * y[j]
            for j in range(n):
                d[j] = y[j] * (dy[j] - dot)
            store(d, dx[r])


def softmax_backward(dout: Array, out: Array, dx: Array | None) -> Array:
    """dx = y * (dout - sum(dout * y)), out = y = softmax(x);  all [..., n], not empty."""
    if dx is None:
        dx = np.empty_like(dout)
    n = out.shape[-1]
    _softmax_backward_kernel(dout.reshape(-1, n), out.reshape(-1, n), dx.reshape(-1, n))
    return dx


@kernel
def _log_softmax_kernel(x: Array, out: Array) -> None:
    rows, n = x.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        y = np.empty(n, np.float32)
        for r in range(lo, hi):
            row = x[r]
            top = peak(row)
            total = ZERO
            for j in range(n):
                y[j] = row[j] - top
            for j in range(n):
                total += exp(y[j])
            log_total = ZERO if total == ZERO else np.log(total)
            for j in range(n):
                y[j] -= log_total
            store(y, out[r])


def log_softmax(x: Array, out: Array | None) -> Array:
    """y_j = x_j - max x - log sum_k exp(x_k - max x);  x, y [..., n]. All -inf stays -inf."""
    if out is None:
        out = np.empty_like(x)
    n = x.shape[-1]
    _log_softmax_kernel(x.reshape(-1, n), out.reshape(-1, n))
    return out


@kernel
def _log_softmax_backward_kernel(dout: Array, out: Array, dx: Array) -> None:
    rows, n = dout.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        d = np.empty(n, np.float32)
        for r in range(lo, hi):
            dy, y = dout[r], out[r]
            total = ZERO
            for j in range(n):
                total += dy[j]
            for j in range(n):
                d[j] = dy[j] - exp(y[j]) * total
            store(d, dx[r])


def log_softmax_backward(dout: Array, out: Array, dx: Array | None) -> Array:
    """dx = dout - exp(y) * sum(dout), out = y = log_softmax(x);  all [..., n]."""
    if dx is None:
        dx = np.empty_like(dout)
    n = out.shape[-1]
    _log_softmax_backward_kernel(dout.reshape(-1, n), out.reshape(-1, n), dx.reshape(-1, n))
    return dx
