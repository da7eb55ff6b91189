"""Sequential: layers one after another."""

from __future__ import annotations

from typing import Any

from ._backward import once
from ._buffer import Array
from .module import Module

__all__ = ["Sequential"]


class Sequential(Module):
    """Layers one after another; the backward pass runs them in reverse.

    It goes no deeper than to the first layer that learns (or to x, where x needs a gradient),
    and what frozen layers below would save is not kept.

    Parameters
    ----------
    *layers : Module
        Each called as `layer(x, need_dx=...)`.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import nn
    >>> net = nn.Sequential(nn.Linear(2, 3, activation="sigmoid"), nn.Linear(3, 1))
    >>> out, backward = net(np.ones((5, 2), np.float32))
    >>> out.shape, backward(out).shape
    ((5, 1), (5, 2))
    >>> [name for name, _ in net.named_parameters()]
    ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']
    """

    def __init__(self, *layers: Module) -> None:
        self.layers: tuple[Any, ...] = layers  # of any kind: typed code asks for their parts

    def __call__(self, x: Array, *, need_dx: bool = True) -> tuple[Array, once]:
        """Apply all layers to x; backward: dout -> dx."""
        backwards: list[once] = []
        x_needs_gradient = need_dx
        for layer in self.layers:
            x, layer_backward = layer(x, need_dx=need_dx)
            need_dx = need_dx or layer.trainable
            if need_dx:
                backwards.append(layer_backward)

        @once
        def backward(dout: Array | None) -> Array | None:
            for layer_backward in reversed(backwards):
                dout = layer_backward(dout)
            return dout if x_needs_gradient else None

        return x, backward
