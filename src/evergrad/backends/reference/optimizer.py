"""Optimizer steps on flat buffers [n], in place. `grad` is multiplied by `grad_scale` first."""

from __future__ import annotations

import math

import numpy as np

from ._common import Array, ieee


def _scaled(param: Array, grad: Array, weight_decay: float, grad_scale: float) -> Array:
    """The gradient to step with: scaled, plus that of weight_decay / 2 * |param|^2."""
    g = grad * grad_scale
    return g + weight_decay * param if weight_decay != 0 else g


@ieee
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
    """Adam (Kingma & Ba 2015); with `decoupled` decay AdamW (Loshchilov & Hutter 2019).

    m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,  step counted from 1:
    param -= lr / (1 - beta1^step) * m / (sqrt(v / (1 - beta2^step)) + eps).
    Decoupled decay first shrinks param by 1 - lr * weight_decay.
    """
    g = _scaled(param, grad, 0.0 if decoupled else weight_decay, grad_scale)
    if decoupled:
        param *= 1 - lr * weight_decay
    exp_avg += (1 - beta1) * (g - exp_avg)
    exp_avg_sq *= beta2
    exp_avg_sq += (1 - beta2) * g * g
    correction1 = 1 - beta1**step
    correction2 = math.sqrt(1 - beta2**step)
    param -= (lr / correction1) * (exp_avg / (np.sqrt(exp_avg_sq) / correction2 + eps))


@ieee
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
    g = _scaled(param, grad, weight_decay, grad_scale)
    if momentum_buffer is not None:
        if first:
            momentum_buffer[...] = g
        else:
            momentum_buffer *= momentum
            momentum_buffer += (1 - dampening) * g
        g = g + momentum * momentum_buffer if nesterov else momentum_buffer
    param -= lr * g


@ieee
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
    g = _scaled(param, grad, weight_decay, grad_scale)
    square_avg *= alpha
    square_avg += (1 - alpha) * g * g
    param -= lr * (g / (np.sqrt(square_avg) + eps))


@ieee
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
    """`adam_step` of chosen rows of [num, dim], after what they skipped.

    k steps without a gradient make m = beta1^k m, v = beta2^k v, and with decoupled decay
    param = (1 - lr weight_decay)^k param. What the fading m would have moved param by is left out.
    """
    p, m, v = param[rows], exp_avg[rows], exp_avg_sq[rows]
    k = skipped[:, None].astype(np.float64)
    m *= (beta1**k).astype(m.dtype)
    v *= (beta2**k).astype(v.dtype)
    if decoupled:
        p *= ((1 - lr * weight_decay) ** k).astype(p.dtype)
    adam_step(
        *(p, grad[rows], m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled, grad_scale)
    )
    param[rows], exp_avg[rows], exp_avg_sq[rows] = p, m, v


@ieee
def sgd_step_rows(param: Array, grad: Array, rows: Array, lr: float, grad_scale: float) -> None:
    """param -= lr g for chosen rows of [num, dim]."""
    param[rows] -= lr * (grad[rows] * grad_scale)


@ieee
def grad_norm(grad: Array) -> float:
    """sqrt(sum g^2), summed in float64."""
    return math.sqrt(np.square(grad, dtype=np.float64).sum())
