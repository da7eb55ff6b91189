"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import ops
from ..ops._check import shown
from .optimizer import FlatBuffers, Optimizer, number

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam; weight decay, if any, is added to the gradient (an L2 penalty).

        m = beta1 m + (1 - beta1) g,    v = beta2 v + (1 - beta2) g^2
        p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Parameters
    ----------
    flat : FlatBuffers
        `model.flat`.
    lr : float, default 1e-3
        Learning rate.
    betas : pair of float, default (0.9, 0.999)
        Decay rates of the two averages.
    eps : float, default 1e-8
        Added to the denominator.
    weight_decay : float, default 0.0
        Of the matrices.

    References
    ----------
    Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2015, arXiv:1412.6980.

    Examples
    --------
    >>> from evergrad import nn
    >>> layer = nn.Linear(1, 1, std=0.0)
    >>> optimizer = Adam(nn.flatten_(layer), lr=0.1)
    >>> layer.weight.grad[...] = 3.0
    >>> optimizer.step()
    >>> layer.weight.data.round(4)
    array([[-0.1]], dtype=float32)
    """

    decoupled = False

    def __init__(
        self,
        flat: FlatBuffers,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(flat, lr, weight_decay)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas: expected a pair, got {shown(betas)}")
        self.betas = number("betas", betas[0], 0.0, 1.0), number("betas", betas[1], 0.0, 1.0)
        self.eps = number("eps", eps, 0.0)
        self.buffers = {name: np.zeros_like(flat.data) for name in ("exp_avg", "exp_avg_sq")}

    def _update(
        self,
        data: npt.NDArray[Any],
        grad: npt.NDArray[Any],
        buffers: dict[str, npt.NDArray[Any]],
        weight_decay: float,
        grad_scale: float,
    ) -> None:
        ops.adam_step(
            data,
            grad,
            **buffers,
            step=self.steps + 1,
            lr=self.lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            weight_decay=weight_decay,
            decoupled=self.decoupled,
            grad_scale=grad_scale,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: ``p = (1 - lr weight_decay) p`` before Adam's update.

    Parameters
    ----------
    flat, lr, betas, eps
        As for `Adam`.
    weight_decay : float, default 0.01
        Of the matrices; biases and norms are left alone.

    References
    ----------
    Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv:1711.05101.

    Examples
    --------
    >>> from evergrad import nn
    >>> layer = nn.Linear(1, 1)
    >>> layer.weight.data[...] = 1.0
    >>> optimizer = AdamW(nn.flatten_(layer), lr=0.1, weight_decay=0.5)
    >>> optimizer.step()                          # no gradient: only the decay moves it
    >>> layer.weight.data
    array([[0.95]], dtype=float32)
    """

    decoupled = True

    def __init__(
        self,
        flat: FlatBuffers,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(flat, lr, betas, eps, weight_decay)
