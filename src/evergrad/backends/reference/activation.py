"""Elementwise activations: ``y = f(x)`` and ``dx = dout * f'(x)``, any shape."""

from __future__ import annotations

import math

import numpy as np

from ._common import Array, emit, ieee

_erfc = np.frompyfunc(math.erfc, 1, 1)

_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)
_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
_CUBIC = 0.044715


def _normal_cdf(x: Array) -> Array:
    """Phi(x) = erfc(-x / sqrt 2) / 2, which keeps its relative accuracy as x -> -inf.

    The C library's erfc in float64, an element at a time: slow, and right to the last bits.
    """
    return (0.5 * np.asarray(_erfc(x * -math.sqrt(0.5)), np.float64)).astype(x.dtype)


def _tanh_argument(x: Array) -> Array:
    return _SQRT_2_OVER_PI * (x + _CUBIC * x * x * x)


@ieee
def relu(x: Array, out: Array | None) -> Array:
    """max(x, 0)."""
    return emit(np.maximum(x, 0), out, x)


# f' = 1 where y > 0, else 0; at the kink the subgradient 0.
@ieee
def relu_backward(dout: Array, saved: Array, dx: Array | None) -> Array:
    """dout * (1 where saved > 0, else 0), saved = relu(x)."""
    return emit(dout * (saved > 0), dx, dout)


@ieee
def sigmoid(x: Array, out: Array | None) -> Array:
    """1 / (1 + exp(-x)), with an exponential that never overflows."""
    e = np.exp(-np.abs(x))
    return emit(np.where(x < 0, e, 1) / (1 + e), out, x)


# y = 1 / (1 + e^-x)  =>  y' = e^-x / (1 + e^-x)^2 = y (1 - y).
@ieee
def sigmoid_backward(dout: Array, saved: Array, dx: Array | None) -> Array:
    """dout * y * (1 - y), saved = y = sigmoid(x)."""
    return emit(dout * saved * (1 - saved), dx, dout)


@ieee
def tanh(x: Array, out: Array | None) -> Array:
    """tanh(x)."""
    return emit(np.tanh(x), out, x)


# y = sinh / cosh  =>  y' = (cosh^2 - sinh^2) / cosh^2 = 1 - y^2.
@ieee
def tanh_backward(dout: Array, saved: Array, dx: Array | None) -> Array:
    """dout * (1 - y^2), saved = y = tanh(x)."""
    return emit(dout * (1 - saved * saved), dx, dout)


@ieee
def gelu(x: Array, approximate: str, out: Array | None) -> Array:
    """x * Phi(x), Phi the standard normal distribution function (Hendrycks & Gimpel 2016).

    approximate "tanh": x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))).
    """
    if approximate == "none":
        return emit(x * _normal_cdf(x), out, x)
    return emit(0.5 * x * (1 + np.tanh(_tanh_argument(x))), out, x)


# "none": (x Phi)' = Phi + x phi, where phi(x) = Phi'(x) = exp(-x^2 / 2) / sqrt(2 pi).
# "tanh": with t = tanh(u), u = sqrt(2 / pi) (x + c x^3), t' = (1 - t^2) u':
#         (x (1 + t) / 2)' = (1 + t) / 2 + x (1 - t^2) u' / 2.
@ieee
def gelu_backward(dout: Array, x: Array, approximate: str, dx: Array | None) -> Array:
    """dout * gelu'(x)."""
    if approximate == "none":
        slope = _normal_cdf(x) + x * (_INV_SQRT_2PI * np.exp(-0.5 * x * x))
    else:
        t = np.tanh(_tanh_argument(x))
        # The square is finite: far out it is multiplied by 0.
        du = _SQRT_2_OVER_PI * (1 + 3 * _CUBIC * np.minimum(x * x, 1e12))
        slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du
    return emit(dout * slope, dx, dout)


# With s = sigmoid(x), s' = s (1 - s):  (x s)' = s + x s (1 - s).
@ieee
def silu(x: Array, out: Array | None) -> Array:
    """x * sigmoid(x) (Hendrycks & Gimpel 2016; Elfwing et al. 2018)."""
    return emit(x * sigmoid(x, None), out, x)


@ieee
def silu_backward(dout: Array, saved: Array, dx: Array | None) -> Array:
    """dout * (s + x s (1 - s)), saved = x, s = sigmoid(x)."""
    s = sigmoid(saved, None)
    return emit(dout * (s + saved * s * (1 - s)), dx, dout)


def activate(pre: Array, name: str | None) -> Array:
    """f(pre) by the activation's name; None is the identity."""
    if name is None:
        return pre
    if name == "gelu":
        return gelu(pre, "none", None)
    if name == "gelu_tanh":
        return gelu(pre, "tanh", None)
    return {"relu": relu, "sigmoid": sigmoid, "tanh": tanh, "silu": silu}[name](pre, None)


def activate_backward(dout: Array, saved: Array | None, name: str | None) -> Array:
    """dout * f'(pre); `saved` is pre for the gelus and silu, f(pre) for the others."""
    if name is None or saved is None:
        return dout
    if name == "gelu":
        return gelu_backward(dout, saved, "none", None)
    if name == "gelu_tanh":
        return gelu_backward(dout, saved, "tanh", None)
    backward = {
        "relu": relu_backward,
        "sigmoid": sigmoid_backward,
        "tanh": tanh_backward,
        "silu": silu_backward,
    }[name]
    return backward(dout, saved, None)
