"""RMSprop."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import ops
from .optimizer import FlatBuffers, Optimizer, number

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """Gradient descent with each step divided by a running root mean square of the gradient.

        v = alpha v + (1 - alpha) g^2
        p = p - lr g / (sqrt(v) + eps)

    Parameters
    ----------
    flat : FlatBuffers
        `model.flat`.
    lr : float, default 1e-2
        Learning rate.
    alpha : float, default 0.99
        Decay rate of the average.
    eps : float, default 1e-8
        Added to the denominator.
    weight_decay : float, default 0.0
        Of the matrices; added to the gradient.

    References
    ----------
    Tieleman & Hinton, "Neural Networks for Machine Learning", lecture 6.5, 2012.

    Examples
    --------
    >>> from evergrad import nn
    >>> layer = nn.Linear(1, 1, std=0.0)
    >>> optimizer = RMSprop(nn.flatten_(layer), lr=0.01)
    >>> layer.weight.grad[...] = 3.0
    >>> optimizer.step()
    >>> layer.weight.data.round(4)
    array([[-0.1]], dtype=float32)
    """

    def __init__(
        self,
        flat: FlatBuffers,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(flat, lr, weight_decay)
        self.alpha = number("alpha", alpha, 0.0, 1.0)
        self.eps = number("eps", eps, 0.0)
        self.buffers = {"square_avg": np.zeros_like(flat.data)}

    def _update(
        self,
        data: npt.NDArray[Any],
        grad: npt.NDArray[Any],
        buffers: dict[str, npt.NDArray[Any]],
        weight_decay: float,
        grad_scale: float,
    ) -> None:
        ops.rmsprop_step(
            data,
            grad,
            **buffers,
            lr=self.lr,
            alpha=self.alpha,
            eps=self.eps,
            weight_decay=weight_decay,
            grad_scale=grad_scale,
        )
