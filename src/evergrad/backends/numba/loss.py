"""Losses: one value a row or an element, and for the latter their sum; `evergrad.ops` reduces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import CHUNK, ROWS, bounds, inline, kernel, pieces, store, store_product
from ._math import ONE, TWO, ZERO, exp, log1p, sigmoid
from .softmax import peak

Array = NDArray[Any]


#: Terms of a sum in float32 that are added in a row; a vocabulary's would lose a digit.
_TERMS = 1024


@kernel
def _cross_entropy_kernel(
    logits: Array, target: Array, ignore_index: int, smoothing: float, losses: Array, lse: Array
) -> None:
    rows, n = logits.shape
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        for r in range(lo, hi):
            row = logits[r]
            top = peak(row)
            total = ZERO
            for begin in range(0, n, _TERMS):
                part = ZERO
                for j in range(begin, min(begin + _TERMS, n)):
                    part += exp(row[j] - top)
                total += part
            lse[r] = top + np.log(total)
            losses[r] = ZERO
            if target[r] == ignore_index:
                continue
            loss = lse[r] - row[target[r]]
            if smoothing > ZERO:  # a logit of -inf is fine without smoothing: never 0 * inf
                even = ZERO
                for j in range(n):
                    even += lse[r] - row[j]
                loss = (ONE - smoothing) * loss + smoothing * (even / np.float32(n))
            losses[r] = loss


def cross_entropy(
    logits: Array, target: Array, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array]:
    """(losses [rows], lse [rows]):  (1 - s) (lse - logit_target) + s mean_j(lse - logit_j)."""
    losses, lse = np.empty(target.size, np.float32), np.empty(target.size, np.float32)
    _cross_entropy_kernel(logits, target, ignore_index, np.float32(label_smoothing), losses, lse)
    return losses, lse


@kernel
def _cross_entropy_backward_kernel(
    logits: Array,
    drows: Array,
    target: Array,
    lse: Array,
    ignore_index: int,
    smoothing: float,
    dlogits: Array,
) -> None:
    rows, n = logits.shape
    even = smoothing / np.float32(n)
    for b in prange(pieces(rows, ROWS)):
        lo, hi = bounds(b, rows, ROWS)
        g = np.empty(n, np.float32)
        for r in range(lo, hi):
            row, d = logits[r], drows[r]
            if target[r] == ignore_index:
                for j in range(n):
                    g[j] = ZERO
            else:
                for j in range(n):
                    g[j] = d * (exp(row[j] - lse[r]) - even)
                g[target[r]] -= d * (ONE - smoothing)
            store(g, dlogits[r])


def cross_entropy_backward(
    drows: Array,
    logits: Array,
    target: Array,
    lse: Array,
    ignore_index: int,
    label_smoothing: float,
    dlogits: Array | None,
) -> Array:
    """dlogits_j = drow * (exp(logit_j - lse) - (1 - s) 1[j = target] - s / classes)."""
    if dlogits is None:
        dlogits = np.empty_like(logits)
    smoothing = np.float32(label_smoothing)
    _cross_entropy_backward_kernel(logits, drows, target, lse, ignore_index, smoothing, dlogits)
    return dlogits


_MSE, _BCE, _MSE_SLOPE, _BCE_SLOPE = range(4)


@inline
def _softplus(x: float) -> float:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    return (ZERO if x <= ZERO else x) + log1p(exp(-abs(x)))


@inline
def _elementwise(code: int, x: Array, t: Array, y: Array) -> None:
    if code == _MSE:
        for i in range(x.size):
            y[i] = (x[i] - t[i]) * (x[i] - t[i])
    elif code == _BCE:
        for i in range(x.size):
            y[i] = _softplus(x[i]) - x[i] * t[i]
    elif code == _MSE_SLOPE:
        for i in range(x.size):
            y[i] = TWO * (x[i] - t[i])
    else:
        for i in range(x.size):
            y[i] = sigmoid(x[i]) - t[i]


@kernel
def _forward_kernel(x: Array, target: Array, code: int, out: Array) -> None:
    for b in prange(pieces(x.size, CHUNK)):
        lo, hi = bounds(b, x.size, CHUNK)
        y = np.empty(hi - lo, np.float32)
        _elementwise(code, x[lo:hi], target[lo:hi], y)
        store(y, out[lo:hi])


@kernel
def _sum_kernel(x: Array, target: Array, code: int, partials: Array) -> None:
    for b in prange(partials.size):
        lo, hi = bounds(b, x.size, CHUNK)
        y = np.empty(hi - lo, np.float32)
        _elementwise(code, x[lo:hi], target[lo:hi], y)
        total = 0.0
        for j in range(y.size):
            total += np.float64(y[j])
        partials[b] = total


@kernel
def _backward_kernel(x: Array, target: Array, code: int, dout: Array, dx: Array) -> None:
    for b in prange(pieces(x.size, CHUNK)):
        lo, hi = bounds(b, x.size, CHUNK)
        y = np.empty(hi - lo, np.float32)
        _elementwise(code, x[lo:hi], target[lo:hi], y)
        if dout.size == x.size:
            store_product(y, dout[lo:hi], dx[lo:hi])
        else:
            for j in range(y.size):
                y[j] *= dout[0]
            store(y, dx[lo:hi])


def _forward(code: int, x: Array, target: Array, out: Array | None) -> Array:
    if out is None:
        out = np.empty_like(x)
    _forward_kernel(x.reshape(-1), target.reshape(-1), code, out.reshape(-1))
    return out


def _sum(code: int, x: Array, target: Array) -> float:
    partials = np.empty(-(-x.size // CHUNK), np.float64)
    _sum_kernel(x.reshape(-1), target.reshape(-1), code, partials)
    return float(partials.sum())


def _backward(code: int, dout: Array, x: Array, target: Array, dx: Array | None) -> Array:
    if dx is None:
        dx = np.empty_like(x)
    _backward_kernel(x.reshape(-1), target.reshape(-1), code, dout.reshape(-1), dx.reshape(-1))
    return dx


def mse_loss(x: Array, target: Array, out: Array | None) -> Array:
    """(x - target)^2, elementwise."""
    return _forward(_MSE, x, target, out)


def mse_loss_sum(x: Array, target: Array) -> float:
    """The sum of (x - target)^2, in float64."""
    return _sum(_MSE, x, target)


def mse_loss_backward(dout: Array, x: Array, target: Array, dx: Array | None) -> Array:
    """2 * dout * (x - target); dout has the size of x, or size 1."""
    return _backward(_MSE_SLOPE, dout, x, target, dx)


def binary_cross_entropy_with_logits(x: Array, target: Array, out: Array | None) -> Array:
    """max(x, 0) - x t + log(1 + exp(-|x|)), elementwise."""
    return _forward(_BCE, x, target, out)


def binary_cross_entropy_with_logits_sum(x: Array, target: Array) -> float:
    """The sum of the losses, in float64."""
    return _sum(_BCE, x, target)


def binary_cross_entropy_with_logits_backward(
    dout: Array, x: Array, target: Array, dx: Array | None
) -> Array:
    """dout * (sigmoid(x) - target); dout has the size of x, or size 1."""
    return _backward(_BCE_SLOPE, dout, x, target, dx)
