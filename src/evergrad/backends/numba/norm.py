"""Normalisation over rows: layer norm (Ba et al. 2016), RMS norm (Zhang & Sennrich 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import ROWS, accumulate, bounds, kernel, partial_sums, pieces, present, store
from ._math import ONE, ZERO

Array = NDArray[Any]


@kernel
def _norm_kernel(
    x: Array,
    residual: Array,
    weight: Array,
    bias: Array,
    eps: float,
    total: Array,
    out: Array,
    mean: Array,
    rstd: Array,
) -> None:
    """Of total = x + residual when they are not empty, else of x; RMS norm when mean is empty."""
    rows, n = x.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        y = np.empty(n, np.float32)
        for r in range(lo, hi):
            row = x[r]
            for j in range(n):
                y[j] = row[j]
            if residual.size > 0:
                skip = residual[r]
                for j in range(n):
                    y[j] += skip[j]
                store(y, total[r])
            if mean.size > 0:
                s = ZERO
                for j in range(n):
                    s += y[j]
                m = s / np.float32(n)
                mean[r] = m
                for j in range(n):
                    y[j] -= m
            squares = ZERO
            for j in range(n):
                squares += y[j] * y[j]
            scale = ONE / np.sqrt(squares / np.float32(n) + eps)
            rstd[r] = scale
            for j in range(n):
                y[j] *= scale
            if weight.size > 0:
                for j in range(n):
                    y[j] *= weight[j]
            if bias.size > 0:
                for j in range(n):
                    y[j] += bias[j]
            store(y, out[r])


def _norm(
    x: Array,
    residual: Array | None,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    total: Array | None,
    out: Array | None,
    mean: Array,
) -> tuple[Array, Array | None, Array]:
    out = np.empty_like(x) if out is None else out
    total = np.empty_like(x) if total is None and residual is not None else total
    rstd = np.empty(x.shape[0], np.float32)
    _norm_kernel(
        *(x, present(residual, 2), present(weight, 1), present(bias, 1), np.float32(eps)),
        *(present(total, 2), out, mean, rstd),
    )
    return out, None if residual is None else total, rstd


def layer_norm(
    x: Array,
    residual: Array | None,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    total: Array | None,
    out: Array | None,
) -> tuple[Array, Array | None, Array, Array]:
    """(out = (t - mean) * rstd * weight + bias, total = t = x + residual, mean, rstd [rows])."""
    mean = np.empty(x.shape[0], np.float32)
    out, total, rstd = _norm(x, residual, weight, bias, eps, total, out, mean)
    return out, total, mean, rstd


def rms_norm(
    x: Array,
    residual: Array | None,
    weight: Array | None,
    eps: float,
    total: Array | None,
    out: Array | None,
) -> tuple[Array, Array | None, Array]:
    """(out = t * rstd * weight, total = t = x + residual, rstd [rows])."""
    return _norm(x, residual, weight, None, eps, total, out, np.empty(0, np.float32))


@kernel
def _norm_backward_kernel(
    dout: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array,
    dresidual: Array,
    dx: Array,
    dweight: Array,
    dbias: Array,
) -> None:
    """dweight, dbias [blocks, n] take sums by row block; what is empty is not wanted.

    Of RMS norm when mean is empty.
    """
    rows, n = dout.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        xhat = np.empty(n, np.float32)
        g = np.empty(n, np.float32)
        sums_w = np.zeros(n, np.float32)
        sums_b = np.zeros(n, np.float32)
        for r in range(lo, hi):
            row, dy = x[r], dout[r]
            m = mean[r] if mean.size > 0 else ZERO
            for j in range(n):
                xhat[j] = (row[j] - m) * rstd[r]
                g[j] = dy[j]
            if dweight.size > 0:
                for j in range(n):
                    sums_w[j] += g[j] * xhat[j]
            if dbias.size > 0:
                for j in range(n):
                    sums_b[j] += g[j]
            if dx.size == 0:
                continue
            if weight.size > 0:
                for j in range(n):
                    g[j] *= weight[j]
            mean_g = ZERO
            mean_gx = ZERO
            for j in range(n):
                mean_g += g[j]
                mean_gx += g[j] * xhat[j]
            mean_g = mean_g / np.float32(n) if mean.size > 0 else ZERO
            mean_gx /= np.float32(n)
            for j in range(n):
                g[j] = rstd[r] * (g[j] - mean_g - xhat[j] * mean_gx)
            if dresidual.size > 0:
                skip = dresidual[r]
                for j in range(n):
                    g[j] += skip[j]
            store(g, dx[r])
        if dweight.size > 0:
            store(sums_w, dweight[b])
        if dbias.size > 0:
            store(sums_b, dbias[b])


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
    rows, n = x.shape
    need_dweight = need_dweight and weight is not None
    if not need_dx:
        dx = None
    elif dx is None:
        dx = np.empty_like(x)
    partial_dweight = partial_sums(rows, n, need_dweight)
    partial_dbias = partial_sums(rows, n, need_dbias)
    _norm_backward_kernel(
        *(dout, x, mean, rstd, present(weight, 1), present(dresidual, 2)),
        *(present(dx, 2), partial_dweight, partial_dbias),
    )
    return (
        dx,
        accumulate(partial_dweight, dweight) if need_dweight else None,
        accumulate(partial_dbias, dbias) if need_dbias else None,
    )


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
    rows, n = x.shape
    need_dweight = need_dweight and weight is not None
    if not need_dx:
        dx = None
    elif dx is None:
        dx = np.empty_like(x)
    partial_dweight = partial_sums(rows, n, need_dweight)
    _norm_backward_kernel(
        *(dout, x, present(None, 1), rstd, present(weight, 1), present(dresidual, 2)),
        *(present(dx, 2), partial_dweight, partial_sums(rows, n, False)),
    )
    return dx, accumulate(partial_dweight, dweight) if need_dweight else None
