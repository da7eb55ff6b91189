"""Softmax over rows."""

from __future__ import annotations

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
