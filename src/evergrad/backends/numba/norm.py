"""Layer normalisation over rows (Ba, Kiros & Hinton 2016)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import ROWS, accumulate, bounds, kernel, partial_sums, pieces, present, store
from ._math import ONE, ZERO

Array = NDArray[Any]


@kernel
def _layer_norm_kernel(
    x: Array, weight: Array, bias: Array, eps: float, out: Array, mean: Array, rstd: Array
) -> None:
    rows, n = x.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        y = np.empty(n, np.float32)
        for r in range(lo, hi):
            row = x[r]
            total = ZERO
            for j in range(n):
                total += row[j]
            m = total / np.float32(n)
            squares = ZERO
            for j in range(n):
                y[j] = row[j] - m
                squares += y[j] * y[j]
            s = ONE / np.sqrt(squares / np.float32(n) + eps)
            for j in range(n):
                y[j] *= s
            if weight.size > 0:
                for j in range(n):
                    y[j] *= weight[j]
            if bias.size > 0:
                for j in range(n):
                    y[j] += bias[j]
            store(y, out[r])
            mean[r] = m
            rstd[r] = s


def layer_norm(
    x: Array, weight: Array | None, bias: Array | None, eps: float, out: Array | None
) -> tuple[Array, Array, Array]:
    """(out = (x - mean) * rstd * weight + bias, mean [rows], rstd [rows]);  x, out [rows, n]."""
    if out is None:
        out = np.empty_like(x)
    mean, rstd = np.empty(x.shape[0], np.float32), np.empty(x.shape[0], np.float32)
    _layer_norm_kernel(x, present(weight, 1), present(bias, 1), np.float32(eps), out, mean, rstd)
    return out, mean, rstd


@kernel
def _layer_norm_backward_kernel(
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
    """dweight, dbias [blocks, n] take sums by row block; what is empty is not wanted."""
    rows, n = dout.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        xhat = np.empty(n, np.float32)
        g = np.empty(n, np.float32)
        sums_w = np.zeros(n, np.float32)
        sums_b = np.zeros(n, np.float32)
        for r in range(lo, hi):
            row, dy = x[r], dout[r]
            for j in range(n):
                xhat[j] = (row[j] - mean[r]) * rstd[r]
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
            mean_g /= np.float32(n)
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
    _layer_norm_backward_kernel(
        *(dout, x, mean, rstd, present(weight, 1), present(dresidual, 2)),
        *(present(dx, 2), partial_dweight, partial_dbias),
    )
    return (
        dx,
        accumulate(partial_dweight, dweight) if need_dweight else None,
        accumulate(partial_dbias, dbias) if need_dbias else None,
    )
