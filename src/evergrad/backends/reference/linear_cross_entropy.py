"""The last layer of a classifier and its loss: cross-entropy of the logits of a linear map."""

from __future__ import annotations

import numpy as np

from ._common import Array, accumulate, emit, ieee
from .loss import cross_entropy, cross_entropy_backward


@ieee
def _logits(x: Array, weight: Array, bias: Array | None, softcap: float) -> Array:
    """z = x W^T + b, or c tanh(z / c) with a softcap c > 0;  [rows, classes]."""
    z = x @ weight.T
    if bias is not None:
        z += bias
    return softcap * np.tanh(z / softcap) if softcap > 0 else z


@ieee
def linear_cross_entropy(
    x: Array,
    weight: Array,
    bias: Array | None,
    target: Array,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
) -> tuple[Array, Array]:
    """x [rows, in], weight [classes, in], target [rows] -> (losses [rows], lse [rows])."""
    return cross_entropy(_logits(x, weight, bias, softcap), target, ignore_index, label_smoothing)


# y = c tanh(z / c)  =>  dy / dz = 1 - tanh(z / c)^2 = 1 - (y / c)^2; the rest is the linear layer's
# backward, with the gradient of the cross-entropy as its cotangent.
@ieee
def linear_cross_entropy_backward(
    drows: Array,
    x: Array,
    weight: Array,
    bias: Array | None,
    target: Array,
    lse: Array,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> tuple[Array | None, Array | None, Array | None]:
    """dx = dz W,  dweight += dz^T x,  dbias += sum of dz over rows."""
    logits = _logits(x, weight, bias, softcap)
    dz = cross_entropy_backward(drows, logits, target, lse, ignore_index, label_smoothing, None)
    if softcap > 0:
        counted = target != ignore_index  # the others give zeros, whatever they hold
        dz[counted] *= 1 - (logits[counted] / softcap) ** 2
    return (
        emit(dz @ weight, dx) if need_dx else None,
        accumulate(dz.T @ x, dweight) if need_dweight else None,
        accumulate(dz.sum(axis=0), dbias) if need_dbias else None,
    )


def linear_cross_entropy_with_grads(
    drows: Array,
    x: Array,
    weight: Array,
    bias: Array | None,
    target: Array,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> tuple[Array, Array | None, Array | None, Array | None]:
    """(losses, dx, dweight, dbias): both of the above."""
    options = (ignore_index, label_smoothing, softcap)
    losses, lse = linear_cross_entropy(x, weight, bias, target, *options)
    grads = linear_cross_entropy_backward(
        drows, x, weight, bias, target, lse, *options,
        dx, dweight, dbias, need_dx, need_dweight, need_dbias,
    )  # fmt: skip
    return (losses, *grads)
