"""Softmax and its logarithm over rows."""

from __future__ import annotations

import numpy as np

from ._common import Array, emit, exponentials, ieee


@ieee
def softmax(x: Array, out: Array | None) -> Array:
    """y_j = exp(x_j - max x) / sum_k exp(x_k - max x);  x, y [rows, n]. All -inf -> zeros."""
    exps, total, _ = exponentials(x)
    total[total == 0] = 1
    return emit(exps / total, out)


# dy_k / dx_j = y_k (1[j = k] - y_j)  =>  dx_j = y_j dout_j - y_j sum_k dout_k y_k.
@ieee
def softmax_backward(dout: Array, out: Array, dx: Array | None) -> Array:
    """dx = y * (dout - sum(dout * y)), out = y = softmax(x);  all [rows, n]."""
    dot = (dout * out).sum(axis=-1, keepdims=True)
    return emit(out * (dout - dot), dx)


@ieee
def log_softmax(x: Array, out: Array | None) -> Array:
    """y_j = x_j - max x - log sum_k exp(x_k - max x);  x, y [rows, n]. All -inf stays -inf."""
    _, total, peak = exponentials(x)
    total[total == 0] = 1
    return emit(x - peak - np.log(total), out)


# dy_k / dx_j = 1[j = k] - exp(y_j)  =>  dx_j = dout_j - exp(y_j) sum_k dout_k.
@ieee
def log_softmax_backward(dout: Array, out: Array, dx: Array | None) -> Array:
    """dx = dout - exp(y) * sum(dout), out = y = log_softmax(x);  all [rows, n]."""
    return emit(dout - np.exp(out) * dout.sum(axis=-1, keepdims=True), dx)
