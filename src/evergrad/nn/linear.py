"""Linear: y = act(x W^T + b) + residual, one fused call each way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import ops
from ..ops._check import choice
from ._backward import NOTHING, once
from ._buffer import Array, empty
from .dropout import Dropout
from .module import Module
from .parameter import Parameter
from .random import RandomStream, initial_weight

__all__ = ["Linear", "ResidualLinear"]

# What the derivative of an activation is written in: its input, or its output. Of the former the
# activation and its backward.
_NEEDS_PRE: dict[str, tuple[Callable[[Array], Array], Callable[..., Array]]] = {
    "gelu": (ops.gelu, ops.gelu_backward),
    "gelu_tanh": (
        partial(ops.gelu, approximate="tanh"),
        partial(ops.gelu_backward, approximate="tanh"),
    ),
    "silu": (ops.silu, ops.silu_backward),
}
_NEEDS_OUT = ("relu", "sigmoid", "tanh")


#: Bytes of an array up to which memory is not saved on it. In a step of 60 ms over inputs of up to
#: 2 MB, making them again costs 3 %, and nobody misses the memory.
WORTH_KEEPING = 2**21


def _kept(x: Array) -> Array:
    return x


def _sum(x: Array, residual: Array, out: Array) -> Array:
    """NumPy would stretch a smaller residual, whose cotangent is not dout."""
    if residual.shape != x.shape:
        raise ValueError(f"residual: expected shape {x.shape}, got {residual.shape}")
    return np.add(x, residual, out=out)


class Linear(Module):
    """Affine map with a fused activation: ``y = activation(x W^T + b)``.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last dimension of input and output.
    bias : bool, default True
        Whether to add b.
    activation : {None, "relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu"}
        Applied in the same pass over the output.
    std : float, optional
        Initial weights are normal with this standard deviation and the bias is 0. By default
        both are uniform in +-1/sqrt(in_features).
    rng : numpy.random.Generator, optional
        Source of the initial weights; default: fresh entropy.

    Attributes
    ----------
    weight : Parameter
        [out_features, in_features].
    bias : Parameter or None
        [out_features].

    Examples
    --------
    >>> layer = Linear(2, 1)
    >>> layer.weight.data[...], layer.bias.data[...] = [[2.0, 3.0]], [1.0]
    >>> out, backward = layer(np.array([[10.0, 100.0]], np.float32))
    >>> out
    array([[321.]], dtype=float32)
    >>> backward(np.array([[1.0]], np.float32))
    array([[2., 3.]], dtype=float32)
    >>> layer.weight.grad
    array([[ 10., 100.]], dtype=float32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        activation: str | None = None,
        std: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        choice("activation", activation, (None, *_NEEDS_PRE, *_NEEDS_OUT))
        shape = (out_features, in_features)
        self.weight = Parameter(initial_weight(shape, std, rng, in_features))
        self.bias: Parameter | Any = None
        if bias:
            bias_std = None if std is None else 0.0
            self.bias = Parameter(initial_weight((out_features,), bias_std, rng, in_features))
        self.activation = activation

    def __call__(
        self,
        x: Array,
        *,
        residual: Array | None = None,
        need_dx: bool = True,
        again: Callable[[], Array] | None = None,
    ) -> tuple[Array, once]:
        """Apply the layer.

        Parameters
        ----------
        x : ndarray
            [..., in_features].
        residual : ndarray, optional
            [..., out_features], added to the result. Its cotangent is `dout` itself.
        need_dx : bool, default True
            Whether the input needs a gradient.
        again : callable, optional
            `again() -> x`. The weight's gradient is a product with x; where x can be had again for
            one pass over memory (a norm, an activation), it is not kept until then. A small one is.

        Returns
        -------
        out : ndarray
            [..., out_features].
        backward : callable
            dout -> dx; with `again` where the derivative needs the activation's input, not `out`.
        """
        weight, bias, activation = self.weight, self.bias, self.activation
        bias_data = None if bias is None else bias.data
        learns = weight.requires_grad or (bias is not None and bias.requires_grad)
        out: Any
        if not (need_dx or learns):
            out = ops.linear(x, weight.data, bias_data, activation=activation, residual=residual)
            return out, NOTHING

        saved: Any = None
        out_again: Callable[[], Array] | None = None
        if activation in _NEEDS_PRE:
            out, saved = ops.linear(
                x, weight.data, bias_data, activation=activation, residual=residual, return_pre=True
            )
            if residual is None:
                out_again = partial(_NEEDS_PRE[activation][0], saved)
        elif activation in _NEEDS_OUT and residual is not None:
            saved = ops.linear(x, weight.data, bias_data, activation=activation)
            out = _sum(saved, residual, empty(saved.shape, saved.dtype))
        else:
            out = ops.linear(x, weight.data, bias_data, activation=activation, residual=residual)
            saved = out if activation in _NEEDS_OUT else None

        large = x.nbytes > WORTH_KEEPING
        input_again = again if large and again is not None else partial(_kept, x)

        def backward(dout: Array) -> Array | None:
            through, derivative = activation, saved
            if activation in _NEEDS_PRE and saved.nbytes > WORTH_KEEPING:
                # Nobody needs the activation's input any more: its gradient takes its place.
                dout = _NEEDS_PRE[activation][1](dout, saved, dx=saved)
                through = derivative = None
            # An input that was made again is gone before dx, which is as wide, is there.
            apart = (
                input_again is again
                and need_dx
                and through is None
                and weight.requires_grad
                and dout.ndim > 1  # `matmul` takes no single vector
            )
            dx, _, _ = ops.linear_backward(
                dout,
                input_again(),
                weight.data,
                activation=through,
                saved=derivative,
                dweight=weight.grad,
                dbias=None if bias is None else bias.grad,
                need_dx=need_dx and not apart,
                need_dweight=weight.requires_grad,
                need_dbias=bias is not None and bias.requires_grad,
            )
            return ops.matmul(dout, weight.data) if apart else dx

        return out, once(backward, out_again)


class ResidualLinear(Linear):
    """The last layer of a residual branch: ``y = residual + dropout(x W^T + b)``.

    One fused call where nothing is dropped.

    Parameters
    ----------
    in_features, out_features, bias, std, rng
        As for `Linear`.
    dropout : float, default 0.0
        Probability of dropping an element of the branch, in training mode.
    stream : RandomStream, optional
        Where the masks come from.

    Examples
    --------
    >>> layer = ResidualLinear(3, 3, std=0.0)
    >>> x = np.ones((2, 3), np.float32)
    >>> out, backward = layer(x, residual=x)
    >>> bool((out == x).all())
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dropout: float = 0.0,
        stream: RandomStream | None = None,
        std: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, std=std, rng=rng)
        self.dropout = Dropout(dropout, stream=stream)

    def __call__(
        self,
        x: Array,
        *,
        residual: Array | None = None,
        need_dx: bool = True,
        again: Callable[[], Array] | None = None,
    ) -> tuple[Array, once]:
        """As `Linear.__call__`; `backward` covers the branch, the residual's cotangent is dout."""
        if not self.dropout.active:
            return super().__call__(x, residual=residual, need_dx=need_dx, again=again)
        out, linear_backward = super().__call__(x, need_dx=need_dx, again=again)
        out, dropout_backward = self.dropout(out)
        if residual is not None:
            _sum(out, residual, out)
        if not linear_backward.needed:
            return out, NOTHING
        return out, once(lambda dout: linear_backward(dropout_backward(dout)))
