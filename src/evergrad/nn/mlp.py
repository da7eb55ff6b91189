"""MLP: the position-wise half of a transformer block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ._backward import once
from ._buffer import Array
from .linear import Linear, ResidualLinear
from .module import Module
from .random import RandomStream

__all__ = ["MLP"]


class MLP(Module):
    """``y = residual + dropout(down(activation(up(x))))``, in two fused calls.

    Parameters
    ----------
    dim, hidden : int
        Sizes outside and inside.
    activation : str or None, default "gelu_tanh"
        As for `Linear`.
    dropout : float, default 0.0
        Of the output, in training mode.
    stream : RandomStream, optional
        Where the dropout masks come from.
    std, out_std : float, optional
        Standard deviations of the initial weights of `up` and of `down`.
    rng : numpy.random.Generator, optional
        Source of the initial weights.

    Examples
    --------
    >>> x = np.ones((5, 4), np.float32)
    >>> out, backward = MLP(4, 16)(x, residual=x)
    >>> out.shape, backward(out).shape
    ((5, 4), (5, 4))
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        activation: str | None = "gelu_tanh",
        dropout: float = 0.0,
        stream: RandomStream | None = None,
        std: float | None = None,
        out_std: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.up = Linear(dim, hidden, activation=activation, std=std, rng=rng)
        self.down = ResidualLinear(
            hidden, dim, dropout=dropout, stream=stream, std=out_std, rng=rng
        )

    def __call__(
        self,
        x: Array,
        *,
        residual: Array | None = None,
        need_dx: bool = True,
        again: Callable[[], Array] | None = None,
    ) -> tuple[Array, once]:
        """Apply to x [..., dim]; backward: dout -> dx (the residual's cotangent is dout).

        `again() -> x` as for `Linear`. The activation's output, the widest array of a block, is
        not kept either where its input is.
        """
        need_dh = need_dx or self.up.trainable
        h, up_backward = self.up(x, need_dx=need_dx, again=again)
        out, down_backward = self.down(
            h, residual=residual, need_dx=need_dh, again=up_backward.again
        )
        return out, once(lambda dout: up_backward(down_backward(dout)))
