"""Gated activations over rows (Shazeer 2020): f(gate) * up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import CHUNK, bounds, kernel, memory, pieces, store, store_product
from .activation import CODES, activate, activate_and_slope

Array = NDArray[Any]


# gate, up and their gradients may be halves of one array: rows of n numbers a stride apart, seen as
# the stretch of memory from the first to the last of them.
@kernel
def _gated_kernel(
    out: Array, code: int, gate: Array, gate_stride: int, up: Array, up_stride: int
) -> None:
    rows, n = out.shape
    columns = pieces(n, CHUNK)
    for b in prange(rows * columns):
        r, (lo, hi) = b // columns, bounds(b % columns, n, CHUNK)
        y = np.empty(hi - lo, np.float32)
        activate(code, gate[r * gate_stride + lo : r * gate_stride + hi], y)
        store_product(y, up[r * up_stride + lo : r * up_stride + hi], out[r, lo:hi])


@kernel
def _gated_backward_kernel(
    dout: Array,
    code: int,
    gate: Array,
    gate_stride: int,
    up: Array,
    up_stride: int,
    dgate: Array,
    dgate_stride: int,
    dup: Array,
    dup_stride: int,
) -> None:
    rows, n = dout.shape
    columns = pieces(n, CHUNK)
    for b in prange(rows * columns):
        r, (lo, hi) = b // columns, bounds(b % columns, n, CHUNK)
        g = gate[r * gate_stride + lo : r * gate_stride + hi]
        u = up[r * up_stride + lo : r * up_stride + hi]
        d = dout[r, lo:hi]
        y = np.empty(hi - lo, np.float32)
        s = np.empty(hi - lo, np.float32)
        activate_and_slope(code, g, y, s)
        for j in range(hi - lo):
            y[j] *= d[j]
            s[j] *= d[j] * u[j]
        store(s, dgate[r * dgate_stride + lo : r * dgate_stride + hi])
        store(y, dup[r * dup_stride + lo : r * dup_stride + hi])


def gated(gate: Array, up: Array, activation: str, out: Array | None) -> Array:
    """f(gate) * up, f = "silu", "gelu" or "gelu_tanh"; all [rows, n], gate and up strided."""
    if out is None:
        out = np.empty(gate.shape, np.float32)
    _gated_kernel(out, CODES[activation], *_strided(gate), *_strided(up))
    return out


def gated_backward(
    dout: Array,
    gate: Array,
    up: Array,
    activation: str,
    dgate: Array | None,
    dup: Array | None,
) -> tuple[Array, Array]:
    """dgate = dout * up * f'(gate),  dup = dout * f(gate)."""
    dgate = np.empty(gate.shape, np.float32) if dgate is None else dgate
    dup = np.empty(gate.shape, np.float32) if dup is None else dup
    operands = (*_strided(gate), *_strided(up), *_strided(dgate), *_strided(dup))
    _gated_backward_kernel(dout, CODES[activation], *operands)
    return dgate, dup


def _strided(x: Array) -> tuple[Array, int]:
    return memory(x), x.strides[0] // 4
