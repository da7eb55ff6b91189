"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import ops
from .optimizer import FlatBuffers, Optimizer, number

__all__ = ["SGD"]


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for.

        b = momentum b + (1 - dampening) g      (b = g at the first step)
        p = p - lr b                            (nesterov: p - lr (g + momentum b))

    Parameters
    ----------
    flat : FlatBuffers
        `model.flat`.
    lr : float, default 1e-3
        Learning rate.
    momentum, dampening : float, default 0.0
        As above.
    nesterov : bool, default False
        Nesterov's momentum.
    weight_decay : float, default 0.0
        Of the matrices; added to the gradient.

    Raises
    ------
    ValueError
        When a setting is no number in its range (see `Optimizer`), or nesterov is asked for without
        momentum, or with dampening.

    References
    ----------
    Sutskever, Martens, Dahl & Hinton, "On the importance of initialization and momentum in deep
    learning", 2013.

    Examples
    --------
    >>> from evergrad import nn
    >>> layer = nn.Linear(1, 1, std=0.0)
    >>> optimizer = SGD(nn.flatten_(layer), lr=0.5)
    >>> layer.weight.grad[...] = 3.0
    >>> optimizer.step()
    >>> layer.weight.data
    array([[-1.5]], dtype=float32)
    """

    def __init__(
        self,
        flat: FlatBuffers,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        momentum = number("momentum", momentum, 0.0, 1.0)
        dampening = number("dampening", dampening, 0.0, 1.0)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                "nesterov needs momentum > 0 and dampening 0, "
                f"got momentum={momentum}, dampening={dampening}"
            )
        super().__init__(flat, lr, weight_decay)
        self.momentum = momentum
        self.dampening = dampening
        self.nesterov = nesterov
        if momentum:
            self.buffers = {"momentum_buffer": np.zeros_like(flat.data)}

    def _update(
        self,
        data: npt.NDArray[Any],
        grad: npt.NDArray[Any],
        buffers: dict[str, npt.NDArray[Any]],
        weight_decay: float,
        grad_scale: float,
    ) -> None:
        ops.sgd_step(
            data,
            grad,
            **buffers,
            lr=self.lr,
            momentum=self.momentum,
            dampening=self.dampening,
            nesterov=self.nesterov,
            weight_decay=weight_decay,
            grad_scale=grad_scale,
            first=self.steps == 0,
        )
