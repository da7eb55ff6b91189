"""Layer normalisation over rows (Ba, Kiros & Hinton 2016)."""

from __future__ import annotations

import numpy as np

from ._common import Array, accumulate, emit, ieee


@ieee
def layer_norm(
    x: Array, weight: Array | None, bias: Array | None, eps: float, out: Array | None
) -> tuple[Array, Array, Array]:
    """x [rows, n], weight, bias [n] -> (out [rows, n], mean [rows], rstd [rows]).

    out = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(mean((x - mean)^2) + eps): the
    variance in two passes, since E[x^2] - mean^2 cancels when the mean is large.
    """
    n = x.shape[1]
    mean = x.sum(axis=1) / n
    centred = x - mean[:, None]
    rstd = 1 / np.sqrt((centred * centred).sum(axis=1) / n + eps)
    value = centred * rstd[:, None]
    if weight is not None:
        value = value * weight
    if bias is not None:
        value = value + bias
    return emit(value, out), mean, rstd


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
