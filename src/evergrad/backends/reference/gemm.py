"""Matrix products, and the linear layer with its fused epilogue."""

from __future__ import annotations

import numpy as np

from ._common import Array, accumulate, emit, ieee
from .activation import activate, activate_backward


@ieee
def matmul(a: Array, b: Array, out: Array | None) -> Array:
    """a [..., m, k] @ b [..., k, n] or [k, n] -> [..., m, n]."""
    return np.matmul(a, b, out=out)


@ieee
def linear(
    x: Array,
    weight: Array,
    bias: Array | None,
    activation: str | None,
    residual: Array | None,
    return_pre: bool,
    out: Array | None,
) -> tuple[Array, Array | None]:
    """x [rows, in], weight [out, in], bias [out], residual [rows, out] -> (out [rows, out], pre).

    pre = x W^T + b (None unless asked for);  out = f(pre) + residual.
    """
    pre = x @ weight.T
    if bias is not None:
        pre += bias
    value = activate(pre, activation)
    if residual is not None:
        value = value + residual
    elif value is pre and return_pre and out is None:
        value = pre.copy()
    return emit(value, out), pre if return_pre else None


def pack_weight(weight: Array) -> Array:
    """What linear_packed reads: here the weight as it is."""
    return weight.copy()


def linear_packed(
    x: Array,
    packed: Array,
    out_features: int,
    bias: Array | None,
    activation: str | None,
    residual: Array | None,
    return_pre: bool,
    out: Array | None,
) -> tuple[Array, Array | None]:
    """``linear`` with a weight from pack_weight."""
    return linear(x, packed, bias, activation, residual, return_pre, out)


# With dpre = dout f'(pre):  out_rj = f(sum_i x_ri W_ji + b_j)  =>
#   dx_ri = sum_j dpre_rj W_ji,   dW_ji = sum_r dpre_rj x_ri,   db_j = sum_r dpre_rj.
# The residual's cotangent is dout itself: the caller has it already.
@ieee
def linear_backward(
    dout: Array,
    x: Array,
    weight: Array,
    activation: str | None,
    saved: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> tuple[Array | None, Array | None, Array | None]:
    """dx = dpre W,  dweight += dpre^T x,  dbias += sum of dpre over rows;  dpre = dout f'(pre).

    saved [rows, out]: pre for the gelus, f(pre) for relu, sigmoid and tanh.
    """
    dpre = activate_backward(dout, saved, activation)
    return (
        emit(dpre @ weight, dx) if need_dx else None,
        accumulate(dpre.T @ x, dweight) if need_dweight else None,
        accumulate(dpre.sum(axis=0), dbias) if need_dbias else None,
    )
