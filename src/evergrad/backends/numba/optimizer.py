"""Optimizer steps on flat buffers [n], in place. `grad` is multiplied by `grad_scale` first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import CHUNK, bounds, kernel, pieces, present

Array = NDArray[Any]

_f = np.float32


@kernel
def _adam_kernel(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    grad_scale: float,
    weight_decay: float,
    shrink: float,
    rate1: float,
    beta2: float,
    rate2: float,
    step_size: float,
    correction2: float,
    eps: float,
) -> None:
    for b in prange(pieces(param.size, CHUNK)):
        lo, hi = bounds(b, param.size, CHUNK)
        p, d, m, v = param[lo:hi], grad[lo:hi], exp_avg[lo:hi], exp_avg_sq[lo:hi]
        for i in range(hi - lo):
            g = d[i] * grad_scale
            if weight_decay != 0.0:  # 0 * inf would be NaN
                g += weight_decay * p[i]
            m_i = m[i] + rate1 * (g - m[i])
            v_i = beta2 * v[i] + rate2 * (g * g)
            m[i] = m_i
            v[i] = v_i
            p[i] = shrink * p[i] - step_size * (m_i / (np.sqrt(v_i) / correction2 + eps))


def adam_step(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    grad_scale: float,
) -> None:
    """m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,  step counted from 1:

    param -= lr / (1 - beta1^step) * m / (sqrt(v / (1 - beta2^step)) + eps).
    """
    scalars = (
        grad_scale,
        0.0 if decoupled else weight_decay,
        1 - lr * weight_decay if decoupled else 1.0,
        1 - beta1,
        beta2,
        1 - beta2,
        lr / (1 - beta1**step),
        math.sqrt(1 - beta2**step),
        eps,
    )
    _adam_kernel(param, grad, exp_avg, exp_avg_sq, *map(_f, scalars))


@kernel
def _sgd_kernel(
    param: Array,
    grad: Array,
    buffer: Array,
    grad_scale: float,
    weight_decay: float,
    lr: float,
    momentum: float,
    rate: float,
    nesterov: bool,
) -> None:
    for b in prange(pieces(param.size, CHUNK)):
        lo, hi = bounds(b, param.size, CHUNK)
        p, d, m = param[lo:hi], grad[lo:hi], buffer[lo:hi]
        for i in range(hi - lo):
            g = d[i] * grad_scale
            if weight_decay != 0.0:  # 0 * inf would be NaN
                g += weight_decay * p[i]
            if m.size > 0:
                m_i = momentum * m[i] + rate * g
                m[i] = m_i
                g = g + momentum * m_i if nesterov else m_i
            p[i] -= lr * g


def sgd_step(
    param: Array,
    grad: Array,
    momentum_buffer: Array | None,
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    grad_scale: float,
    first: bool,
) -> None:
    """b = momentum b + (1 - dampening) g (b = g when `first`);  param -= lr b.

    With `nesterov` param -= lr (g + momentum b); without a buffer param -= lr g.
    """
    if first and momentum_buffer is not None:
        momentum_buffer[...] = 0
        dampening = 0.0
    scalars = map(_f, (grad_scale, weight_decay, lr, momentum, 1 - dampening))
    _sgd_kernel(param, grad, present(momentum_buffer, 1), *scalars, nesterov)


@kernel
def _rmsprop_kernel(
    param: Array,
    grad: Array,
    square_avg: Array,
    grad_scale: float,
    weight_decay: float,
    lr: float,
    alpha: float,
    rate: float,
    eps: float,
) -> None:
    for b in prange(pieces(param.size, CHUNK)):
        lo, hi = bounds(b, param.size, CHUNK)
        p, d, v = param[lo:hi], grad[lo:hi], square_avg[lo:hi]
        for i in range(hi - lo):
            g = d[i] * grad_scale
            if weight_decay != 0.0:  # 0 * inf would be NaN
                g += weight_decay * p[i]
            v_i = alpha * v[i] + rate * (g * g)
            v[i] = v_i
            p[i] -= lr * (g / (np.sqrt(v_i) + eps))


def rmsprop_step(
    param: Array,
    grad: Array,
    square_avg: Array,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    grad_scale: float,
) -> None:
    """v = alpha v + (1 - alpha) g^2;  param -= lr g / (sqrt(v) + eps) (Tieleman & Hinton 2012)."""
    scalars = map(_f, (grad_scale, weight_decay, lr, alpha, 1 - alpha, eps))
    _rmsprop_kernel(param, grad, square_avg, *scalars)


# The first argument decides whether threads are worth it: the rows that are worked on.
@kernel
def _adam_rows_kernel(
    touched: Array,
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    rows: Array,
    fade1: Array,
    fade2: Array,
    keep: Array,
    grad_scale: float,
    weight_decay: float,
    shrink: float,
    rate1: float,
    beta2: float,
    rate2: float,
    step_size: float,
    correction2: float,
    eps: float,
) -> None:
    for b in prange(rows.size):
        r = rows[b]
        p, d, m, v = param[r], grad[r], exp_avg[r], exp_avg_sq[r]
        for i in range(p.size):
            p_i = p[i] * keep[b]
            g = d[i] * grad_scale
            if weight_decay != 0.0:  # 0 * inf would be NaN
                g += weight_decay * p_i
            m_i = m[i] * fade1[b]
            m_i += rate1 * (g - m_i)
            v_i = beta2 * (v[i] * fade2[b]) + rate2 * (g * g)
            m[i] = m_i
            v[i] = v_i
            p[i] = shrink * p_i - step_size * (m_i / (np.sqrt(v_i) / correction2 + eps))


def adam_step_rows(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    rows: Array,
    skipped: Array,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    grad_scale: float,
) -> None:
    """`adam_step` of chosen rows of [num, dim]; m, v and the decay catch up on skipped steps."""
    keep = 1 - lr * weight_decay if decoupled else 1.0
    k = skipped.astype(np.float64)
    scalars = (
        grad_scale,
        0.0 if decoupled else weight_decay,
        keep,
        1 - beta1,
        beta2,
        1 - beta2,
        lr / (1 - beta1**step),
        math.sqrt(1 - beta2**step),
        eps,
    )
    _adam_rows_kernel(
        np.broadcast_to(_f(0), (rows.size, param.shape[1])),
        *(param, grad, exp_avg, exp_avg_sq, rows),
        *((base**k).astype(np.float32) for base in (beta1, beta2, keep)),
        *map(_f, scalars),
    )


@kernel
def _sgd_rows_kernel(
    touched: Array, param: Array, grad: Array, rows: Array, lr: float, grad_scale: float
) -> None:
    for b in prange(rows.size):
        p, d = param[rows[b]], grad[rows[b]]
        for i in range(p.size):
            p[i] -= lr * (d[i] * grad_scale)


def sgd_step_rows(param: Array, grad: Array, rows: Array, lr: float, grad_scale: float) -> None:
    """param -= lr g for chosen rows of [num, dim]."""
    touched = np.broadcast_to(_f(0), (rows.size, param.shape[1]))
    _sgd_rows_kernel(touched, param, grad, rows, _f(lr), _f(grad_scale))


@kernel
def _sum_squares_kernel(grad: Array, partials: Array) -> None:
    for b in prange(partials.size):
        lo, hi = bounds(b, grad.size, CHUNK)
        g = grad[lo:hi]
        total = 0.0
        for i in range(hi - lo):
            total += np.float64(g[i]) * np.float64(g[i])
        partials[b] = total


def grad_norm(grad: Array) -> float:
    """sqrt(sum g^2), summed in float64."""
    partials = np.empty(-(-grad.size // CHUNK), np.float64)
    _sum_squares_kernel(grad, partials)
    return math.sqrt(partials.sum())
