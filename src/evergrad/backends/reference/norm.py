"""Normalisation over rows: layer norm (Ba et al. 2016), RMS norm (Zhang & Sennrich 2019)."""

from __future__ import annotations

import numpy as np

from ._common import Array, accumulate, emit, ieee


def _total(x: Array, residual: Array | None, total: Array | None) -> tuple[Array, Array | None]:
    """What is normalised, and what is returned of it: x + residual, or x and None."""
    if residual is None:
        return x, None
    total = emit(x + residual, total)
    return total, total


@ieee
def layer_norm(
    x: Array,
    residual: Array | None,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    total: Array | None,
    out: Array | None,
) -> tuple[Array, Array | None, Array, Array]:
    """x, residual [rows, n], weight, bias [n] -> (out, total [rows, n], mean, rstd [rows]).

    With t = total = x + residual (t = x without a residual, and total is None):
    out = (t - mean) * rstd * weight + bias, rstd = 1 / sqrt(mean((t - mean)^2) + eps): the
    variance in two passes, since E[t^2] - mean^2 cancels when the mean is large.
    """
    x, total = _total(x, residual, total)
    n = x.shape[1]
    mean = x.sum(axis=1) / n
    centred = x - mean[:, None]
    rstd = 1 / np.sqrt((centred * centred).sum(axis=1) / n + eps)
    value = centred * rstd[:, None]
    if weight is not None:
        value = value * weight
    if bias is not None:
        value = value + bias
    return emit(value, out), total, mean, rstd


@ieee
def rms_norm(
    x: Array,
    residual: Array | None,
    weight: Array | None,
    eps: float,
    total: Array | None,
    out: Array | None,
) -> tuple[Array, Array | None, Array]:
    """x, residual [rows, n], weight [n] -> (out, total [rows, n], rstd [rows]).

    With t = total = x + residual (t = x without a residual, and total is None):
    out = t * rstd * weight, rstd = 1 / sqrt(mean(t^2) + eps).
    """
    x, total = _total(x, residual, total)
    rstd = 1 / np.sqrt((x * x).sum(axis=1) / x.shape[1] + eps)
    value = x * rstd[:, None]
    if weight is not None:
        value = value * weight
    return emit(value, out), total, rstd


# With xhat = (x - mean) rstd and g = dout weight (the cotangent of xhat), over one row of n:
#   dxhat_k / dx_j = rstd (1[j = k] - 1/n - xhat_j xhat_k / n),
# since d mean / dx_j = 1/n and d rstd / dx_j = -rstd^3 (x_j - mean) / n = -rstd^2 xhat_j / n. So
#   dx_j = rstd (g_j - mean_k(g_k) - xhat_j mean_k(g_k xhat_k)).
# out = xhat weight + bias  =>  dweight = sum_rows dout xhat,  dbias = sum_rows dout.
@ieee
def layer_norm_backward(
    dout: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    dresidual: Array | None,
    dx: Array | None,
    dweight: Array | None,
    dbias: Array | None,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
) -> tuple[Array | None, Array | None, Array | None]:
    """dx = dresidual + rstd (g - mean(g) - xhat mean(g xhat)), g = dout * weight.

    dweight += sum_rows dout * xhat (None without a weight), dbias += sum_rows dout.
    """
    n = x.shape[1]
    xhat = (x - mean[:, None]) * rstd[:, None]
    # Parameter gradients first: dx may alias dout.
    if need_dweight and weight is not None:
        dweight = accumulate((dout * xhat).sum(axis=0), dweight)
    else:
        dweight = None
    dbias = accumulate(dout.sum(axis=0), dbias) if need_dbias else None
    if not need_dx:
        return None, dweight, dbias
    g = dout if weight is None else dout * weight
    mean_g = g.sum(axis=1, keepdims=True) / n
    mean_gx = (g * xhat).sum(axis=1, keepdims=True) / n
    value = rstd[:, None] * (g - mean_g - xhat * mean_gx)
    if dresidual is not None:
        value = value + dresidual
    return emit(value, dx), dweight, dbias


# As above without the mean: d rstd / dx_j = -rstd^3 x_j / n = -rstd^2 xhat_j / n.
@ieee
def rms_norm_backward(
    dout: Array,
    x: Array,
    rstd: Array,
    weight: Array | None,
    dresidual: Array | None,
    dx: Array | None,
    dweight: Array | None,
    need_dx: bool,
    need_dweight: bool,
) -> tuple[Array | None, Array | None]:
    """dx = dresidual + rstd (g - xhat mean(g xhat)), g = dout * weight, xhat = x * rstd.

    dweight += sum_rows dout * xhat (None without a weight).
    """
    xhat = x * rstd[:, None]
    if need_dweight and weight is not None:
        dweight = accumulate((dout * xhat).sum(axis=0), dweight)
    else:
        dweight = None
    if not need_dx:
        return None, dweight
    g = dout if weight is None else dout * weight
    mean_gx = (g * xhat).sum(axis=1, keepdims=True) / x.shape[1]
    value = rstd[:, None] * (g - xhat * mean_gx)
    if dresidual is not None:
        value = value + dresidual
    return emit(value, dx), dweight
