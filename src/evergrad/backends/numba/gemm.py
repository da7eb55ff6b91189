"""Matrix products by NumPy's BLAS, with everything around them in one pass over the result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ..reference.gemm import matmul
from ._kernel import (
    ROWS,
    accumulate,
    bounds,
    kernel,
    partial_sums,
    pieces,
    present,
    store,
    store_product,
)
from .activation import CODES, activate, slope

__all__ = ["linear", "linear_backward", "matmul"]

Array = NDArray[Any]


@kernel
def _epilogue(
    product: Array, bias: Array, code: int, residual: Array, keep_pre: bool, out: Array
) -> None:
    """out = f(product + bias) + residual; product becomes product + bias if `keep_pre`."""
    rows, n = product.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        pre = np.empty(n, np.float32)
        y = np.empty(n, np.float32)
        for r in range(lo, hi):
            store(product[r], pre)
            if bias.size > 0:
                for j in range(n):
                    pre[j] += bias[j]
            if keep_pre:
                store(pre, product[r])
            activate(code, pre, y)
            if residual.size > 0:
                skip = residual[r]
                for j in range(n):
                    y[j] += skip[j]
            store(y, out[r])


def linear(
    x: Array,
    weight: Array,
    bias: Array | None,
    activation: str | None,
    residual: Array | None,
    return_pre: bool,
    out: Array | None,
) -> tuple[Array, Array | None]:
    """(out = f(pre) + residual, pre = x W^T + b or None);  x [rows, in], weight [out, in]."""
    # The product may lie in `out` unless both are wanted, or `out` is the residual.
    apart = return_pre or residual is not None
    product = matmul(x, weight.T, None if apart else out)
    if not apart and bias is None and activation is None:
        return product, None
    if out is None:
        out = np.empty_like(product) if return_pre else product
    _epilogue(product, present(bias, 1), CODES[activation], present(residual, 2), return_pre, out)
    return out, product if return_pre else None


def pack_weight(weight: Array) -> Array:
    """What linear_packed reads: BLAS packs for itself, so the weight as it is."""
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


@kernel
def _dpre_kernel(dout: Array, code: int, saved: Array, dpre: Array, partials: Array) -> None:
    """dpre = dout * f'(pre) [rows, n] unless code is 0; its sums by row block in partials."""
    rows, n = dout.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        y = np.empty(n, np.float32)
        sums = np.zeros(n, np.float32)
        for r in range(lo, hi):
            if code == 0:
                store(dout[r], y)
            else:
                slope(code, saved[r], y)
                store_product(y, dout[r], dpre[r])
            for j in range(n):
                sums[j] += y[j]
        if partials.size > 0:
            store(sums, partials[b])


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
    """dx = dpre W,  dweight += dpre^T x,  dbias += sum of dpre over rows;  dpre = dout f'(pre)."""
    rows, n = dout.shape
    product = None if activation is None else np.empty_like(dout)
    partials = partial_sums(rows, n, need_dbias)
    if activation is not None or need_dbias:
        # Never dout for an output: it may be read-only, and the kernel is compiled as a whole.
        _dpre_kernel(dout, CODES[activation], present(saved, 2), present(product, 2), partials)
    dpre = dout if product is None else product
    if need_dweight:
        if dweight is None:
            dweight = matmul(dpre.T, x, None)
        else:
            dweight += matmul(dpre.T, x, None)
    return (
        matmul(dpre, weight, dx) if need_dx else None,
        dweight if need_dweight else None,
        accumulate(partials, dbias) if need_dbias else None,
    )
