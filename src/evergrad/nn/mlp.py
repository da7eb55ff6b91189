"""MLP, plain and gated: the position-wise half of a transformer block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import ops
from ..ops._check import choice
from ._backward import NOTHING, once
from ._buffer import Array
from .dropout import Dropout
from .linear import Linear, ResidualLinear
from .module import Module
from .packed import PackedLinear
from .random import RandomStream

__all__ = ["MLP", "GatedMLP"]


class MLP(Module):
    """``y = residual + dropout(down(activation(up(x))))``, in two fused calls.

    Parameters
    ----------
    dim, hidden : int
        Sizes outside and inside.
    activation : str or None, default "gelu_tanh"
        As for `Linear`.
    bias : bool, default True
        Of both maps.
    dropout, hidden_dropout : float, default 0.0
        Of the output, and of what is between the two maps, in training mode.
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
        bias: bool = True,
        dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        stream: RandomStream | None = None,
        std: float | None = None,
        out_std: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.up = Linear(dim, hidden, bias, activation=activation, std=std, rng=rng)
        self.down = ResidualLinear(
            hidden, dim, bias, dropout=dropout, stream=stream, std=out_std, rng=rng
        )
        self.hidden_dropout = Dropout(hidden_dropout, stream=self.down.dropout.stream)

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
        h, up_backward = self.up(x, need_dx=need_dx, again=again)
        return _down(self, h, up_backward, residual)


class GatedMLP(Module):
    """``y = residual + dropout(down(activation(gate(x)) * up(x)))``.

    Parameters
    ----------
    dim, hidden : int
        Sizes outside and inside.
    activation : {"silu", "gelu", "gelu_tanh"}
        Of the gate: SwiGLU and GEGLU.
    bias : bool, default False
        Of all three maps.
    dropout, hidden_dropout, stream, std, out_std, rng
        As for `MLP`.

    Attributes
    ----------
    gate_up : PackedLinear
        [2 hidden, dim]: gate, then up.
    down : ResidualLinear
        [dim, hidden].

    Raises
    ------
    ValueError
        When the activation is another.

    References
    ----------
    Shazeer, "GLU Variants Improve Transformer", 2020, arXiv:2002.05202.

    Examples
    --------
    >>> x = np.ones((5, 4), np.float32)
    >>> out, backward = GatedMLP(4, 16)(x, residual=x)
    >>> out.shape, backward(out).shape
    ((5, 4), (5, 4))
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        activation: str = "silu",
        bias: bool = False,
        dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        stream: RandomStream | None = None,
        std: float | None = None,
        out_std: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        choice("activation", activation, (*_GATED,))
        self.activation = activation
        self.gate_up = PackedLinear(dim, (hidden, hidden), bias, std=std, rng=rng)
        self.down = ResidualLinear(
            hidden, dim, bias, dropout=dropout, stream=stream, std=out_std, rng=rng
        )
        self.hidden_dropout = Dropout(hidden_dropout, stream=self.down.dropout.stream)

    def __call__(
        self,
        x: Array,
        *,
        residual: Array | None = None,
        need_dx: bool = True,
        again: Callable[[], Array] | None = None,
    ) -> tuple[Array, once]:
        """Apply to x [..., dim]; backward: dout -> dx (the residual's cotangent is dout)."""
        gate_up, gate_up_backward = self.gate_up(x, need_dx=need_dx, again=again)
        hidden = gate_up.shape[-1] // 2
        gate, up = gate_up[..., :hidden], gate_up[..., hidden:]
        gated, gated_backward = _GATED[self.activation]
        if not gate_up_backward.needed:
            return _down(self, gated(gate, up), NOTHING, residual)

        def backward(dh: Array) -> Array | None:
            # Nobody needs gate and up any more: their gradients take their place.
            gated_backward(dh, gate, up, dgate=gate, dup=up)
            return gate_up_backward(gate_up)

        h_backward = once(backward, partial(gated, gate, up))
        return _down(self, gated(gate, up), h_backward, residual)


_GATED: dict[str, tuple[Callable[..., Array], Callable[..., Any]]] = {
    "silu": (ops.swiglu, ops.swiglu_backward),
    "gelu": (ops.geglu, ops.geglu_backward),
    "gelu_tanh": (
        partial(ops.geglu, approximate="tanh"),
        partial(ops.geglu_backward, approximate="tanh"),
    ),
}


def _down(
    mlp: MLP | GatedMLP, h: Array, h_backward: once, residual: Array | None
) -> tuple[Array, once]:
    """The second half of both."""
    need_dh = h_backward.needed
    if not mlp.hidden_dropout.active:
        again = h_backward.again
        out, down_backward = mlp.down(h, residual=residual, need_dx=need_dh, again=again)
        if not down_backward.needed:
            return out, NOTHING
        return out, once(lambda dout: h_backward(down_backward(dout)))
    h, dropout_backward = mlp.hidden_dropout(h, need_dx=need_dh)
    out, down_backward = mlp.down(h, residual=residual, need_dx=need_dh)
    return out, once(lambda dout: h_backward(dropout_backward(down_backward(dout))))
