"""Losses: one value a row or an element, and for the latter their sum; `evergrad.ops` reduces."""

from __future__ import annotations

import numpy as np

from ._common import Array, emit, exponentials, ieee
from .activation import sigmoid


@ieee
def cross_entropy(
    logits: Array, target: Array, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array]:
    """logits [rows, classes], target [rows] -> (losses [rows], lse [rows]).

    lse = log sum_j exp(logit_j), the negative log-probability of class j is lse - logit_j:
    loss = (1 - s) (lse - logit_target) + s / classes * sum_j (lse - logit_j). Ignored rows: 0.
    """
    counted = target != ignore_index
    label = np.where(counted, target, 0)[:, None]
    _, total, peak = exponentials(logits)
    lse = peak + np.log(total)
    losses = lse - np.take_along_axis(logits, label, axis=1)
    if label_smoothing > 0:  # a logit of -inf is fine without smoothing: never 0 * inf
        even = (lse - logits).sum(axis=1, keepdims=True) / logits.shape[1]
        losses = (1 - label_smoothing) * losses + label_smoothing * even
    return np.where(counted, losses[:, 0], 0).astype(logits.dtype, copy=False), lse[:, 0]


# d lse / d logit_j = exp(logit_j - lse) = p_j. The weights (1 - s) 1[j = target] + s / classes
# of the log-probabilities sum to one, so d loss / d logit_j = p_j - weight_j.
@ieee
def cross_entropy_backward(
    drows: Array,
    logits: Array,
    target: Array,
    lse: Array,
    ignore_index: int,
    label_smoothing: float,
    dlogits: Array | None,
) -> Array:
    """dlogits_j = drow * (exp(logit_j - lse) - (1 - s) 1[j = target] - s / classes).

    drows [rows] is the cotangent of each row's loss; ignored rows give zeros, whatever they hold.
    """
    counted = target != ignore_index
    grad = np.exp(logits - lse[:, None])
    if label_smoothing > 0:
        grad -= label_smoothing / logits.shape[1]
    rows = np.flatnonzero(counted)
    grad[rows, target[rows]] -= 1 - label_smoothing
    grad *= drows[:, None]
    grad[~counted] = 0
    return emit(grad, dlogits)


def _spread(dout: Array, shape: tuple[int, ...]) -> Array:
    """A cotangent for every element, or a single one for all: shaped to broadcast to `shape`."""
    return dout.reshape(shape if dout.size == np.prod(shape) else ())


@ieee
def mse_loss(x: Array, target: Array, out: Array | None) -> Array:
    """(x - target)^2, elementwise."""
    difference = x - target
    return emit(difference * difference, out, x)


def mse_loss_sum(x: Array, target: Array) -> float:
    """The sum of (x - target)^2, in float64."""
    return float(mse_loss(x, target, None).sum(dtype=np.float64))


# d (x - t)^2 / dx = 2 (x - t).
@ieee
def mse_loss_backward(dout: Array, x: Array, target: Array, dx: Array | None) -> Array:
    """2 * dout * (x - target); dout has the size of x, or size 1."""
    return emit(2 * _spread(dout, x.shape) * (x - target), dx, x)


@ieee
def binary_cross_entropy_with_logits(x: Array, target: Array, out: Array | None) -> Array:
    """-t log sigmoid(x) - (1 - t) log sigmoid(-x), elementwise.

    log sigmoid(x) = x - softplus(x) and log sigmoid(-x) = -softplus(x), so the loss is
    softplus(x) - x t = max(x, 0) - x t + log(1 + exp(-|x|)), which neither overflows nor cancels.
    """
    return emit(np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x))), out, x)


def binary_cross_entropy_with_logits_sum(x: Array, target: Array) -> float:
    """The sum of the losses, in float64."""
    return float(binary_cross_entropy_with_logits(x, target, None).sum(dtype=np.float64))


# d (softplus(x) - x t) / dx = sigmoid(x) - t.
@ieee
def binary_cross_entropy_with_logits_backward(
    dout: Array, x: Array, target: Array, dx: Array | None
) -> Array:
    """dout * (sigmoid(x) - target); dout has the size of x, or size 1."""
    return emit(_spread(dout, x.shape) * (sigmoid(x, None) - target), dx, x)
