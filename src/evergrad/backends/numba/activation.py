"""Elementwise activations over stretches: y = f(x), and the slope f'(x) from what was saved."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import CHUNK, bounds, inline, kernel, pieces, store, store_product
from ._math import HALF, ONE, ZERO, exp, normal_tail
from ._math import sigmoid as _sigmoid
from ._math import tanh as _tanh

Array = NDArray[Any]

_INV_SQRT_2PI = np.float32(0.3989422804014327)
_TWO_SQRT_2_OVER_PI = np.float32(2 * 0.7978845608028654)
_CUBIC = np.float32(0.044715)
_CUBIC_SLOPE = np.float32(3 * 0.044715)
_FAR = np.float32(1e12)

_RELU, _SIGMOID, _TANH, _GELU, _GELU_TANH, _SILU = range(1, 7)
CODES = {
    None: 0,
    "relu": _RELU,
    "sigmoid": _SIGMOID,
    "tanh": _TANH,
    "gelu": _GELU,
    "gelu_tanh": _GELU_TANH,
    "silu": _SILU,
}


@inline
def _gelu(x: float) -> float:
    """x Phi(x)."""
    tail = normal_tail(abs(x), exp(-HALF * (x * x)))
    return x * (ONE - tail if x > ZERO else tail)


@inline
def _gelu_slope(x: float) -> float:
    """Phi(x) + x phi(x)."""
    bell = exp(-HALF * (x * x))
    tail = normal_tail(abs(x), bell)
    return (ONE - tail if x > ZERO else tail) + x * (_INV_SQRT_2PI * bell)


# (1 + tanh u) / 2 = sigmoid(2u) turns the tanh form into x sigmoid(v), v = 2u; with e = exp(-|v|)
# sigmoid' = e / (1 + e)^2, where s (1 - s) would cancel.
@inline
def _gelu_tanh_argument(x: float) -> float:
    return _TWO_SQRT_2_OVER_PI * (x + _CUBIC * (x * x * x))


@inline
def _gelu_tanh(x: float) -> float:
    return x * _sigmoid(_gelu_tanh_argument(x))


@inline
def _gelu_tanh_slope(x: float) -> float:
    """s + x s' v'."""
    v = _gelu_tanh_argument(x)
    e = exp(-abs(v))
    r = ONE / (ONE + e)
    square = x * x
    square = square if square < _FAR else _FAR  # finite: out there it is multiplied by 0
    dv = _TWO_SQRT_2_OVER_PI * (ONE + _CUBIC_SLOPE * square)
    return (r if v > ZERO else e * r) + x * (e * r * r * dv)


@inline
def _silu_slope(x: float) -> float:
    """s + x s (1 - s)."""
    s = _sigmoid(x)
    y = x * s
    return s + y * (ONE - s)


@inline
def activate(code: int, x: Array, y: Array) -> None:
    """y = f(x). The choice is made once, outside the loops."""
    if code == _RELU:
        for i in range(x.size):
            y[i] = ZERO if x[i] <= ZERO else x[i]  # NaN compares false and passes
    elif code == _SIGMOID:
        for i in range(x.size):
            y[i] = _sigmoid(x[i])
    elif code == _TANH:
        for i in range(x.size):
            y[i] = _tanh(x[i])
    elif code == _GELU:
        for i in range(x.size):
            y[i] = _gelu(x[i])
    elif code == _GELU_TANH:
        for i in range(x.size):
            y[i] = _gelu_tanh(x[i])
    elif code == _SILU:
        for i in range(x.size):
            y[i] = x[i] * _sigmoid(x[i])
    else:
        store(x, y)


@inline
def slope(code: int, saved: Array, y: Array) -> None:
    """y = f'(x), from saved = x for the gelus and silu, f(x) for the others."""
    if code == _RELU:
        for i in range(saved.size):
            y[i] = ONE if saved[i] > ZERO else ZERO
    elif code == _SIGMOID:
        for i in range(saved.size):
            y[i] = saved[i] * (ONE - saved[i])
    elif code == _TANH:
        for i in range(saved.size):
            y[i] = ONE - saved[i] * saved[i]
    elif code == _GELU:
        for i in range(saved.size):
            y[i] = _gelu_slope(saved[i])
    elif code == _GELU_TANH:
        for i in range(saved.size):
            y[i] = _gelu_tanh_slope(saved[i])
    else:
        for i in range(saved.size):
            y[i] = _silu_slope(saved[i])


@inline
def activate_and_slope(code: int, x: Array, y: Array, s: Array) -> None:
    """y = f(x) and s = f'(x) of a gate; silu's have one sigmoid for both."""
    if code == _SILU:
        for i in range(x.size):
            r = _sigmoid(x[i])
            y[i] = x[i] * r
            s[i] = r + x[i] * r * (ONE - r)
    else:
        activate(code, x, y)
        slope(code, x, s)


@kernel
def _forward_kernel(x: Array, code: int, out: Array) -> None:
    for b in prange(pieces(x.size, CHUNK)):
        lo, hi = bounds(b, x.size, CHUNK)
        y = np.empty(hi - lo, np.float32)
        activate(code, x[lo:hi], y)
        store(y, out[lo:hi])


@kernel
def _backward_kernel(dout: Array, code: int, saved: Array, dx: Array) -> None:
    for b in prange(pieces(dout.size, CHUNK)):
        lo, hi = bounds(b, dout.size, CHUNK)
        y = np.empty(hi - lo, np.float32)
        slope(code, saved[lo:hi], y)
        store_product(y, dout[lo:hi], dx[lo:hi])


def _forward(name: str, x: Array, out: Array | None) -> Array:
    if out is None:
        out = np.empty_like(x)
    _forward_kernel(x.reshape(-1), CODES[name], out.reshape(-1))
    return out


def _backward(name: str, dout: Array, saved: Array, dx: Array | None) -> Array:
    if dx is None:
        dx = np.empty_like(dout)
    _backward_kernel(dout.reshape(-1), CODES[name], saved.reshape(-1), dx.reshape(-1))
    return dx


def relu(x: Array, out: Array | None) -> Array:
    """max(x, 0)."""
    return _forward("relu", x, out)


def relu_backward(dout: Array, saved: Array, dx: Array | None) -> Array:
    """dout * (1 where saved > 0, else 0), saved = relu(x)."""
    return _backward("relu", dout, saved, dx)


def sigmoid(x: Array, out: Array | None) -> Array:
    """1 / (1 + exp(-x))."""
    return _forward("sigmoid", x, out)


def sigmoid_backward(dout: Array, saved: Array, dx: Array | None) -> Array:
    """dout * y * (1 - y), saved = y = sigmoid(x)."""
    return _backward("sigmoid", dout, saved, dx)


def tanh(x: Array, out: Array | None) -> Array:
    """tanh(x)."""
    return _forward("tanh", x, out)


def tanh_backward(dout: Array, saved: Array, dx: Array | None) -> Array:
    """dout * (1 - y^2), saved = y = tanh(x)."""
    return _backward("tanh", dout, saved, dx)


def gelu(x: Array, approximate: str, out: Array | None) -> Array:
    """x * Phi(x), or with "tanh" x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    return _forward("gelu" if approximate == "none" else "gelu_tanh", x, out)


def gelu_backward(dout: Array, x: Array, approximate: str, dx: Array | None) -> Array:
    """dout * gelu'(x)."""
    return _backward("gelu" if approximate == "none" else "gelu_tanh", dout, x, dx)


def silu(x: Array, out: Array | None) -> Array:
    """x * sigmoid(x)."""
    return _forward("silu", x, out)


def silu_backward(dout: Array, saved: Array, dx: Array | None) -> Array:
    """dout * (s + x s (1 - s)), saved = x, s = sigmoid(x)."""
    return _backward("silu", dout, saved, dx)
