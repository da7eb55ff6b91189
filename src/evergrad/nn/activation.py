"""Activations as layers, for compositions where they are not fused into a `Linear`."""

from __future__ import annotations

from collections.abc import Callable

from .. import ops
from ..ops._check import choice
from ._backward import once
from ._buffer import Array
from .module import Module

__all__ = ["GELU", "ReLU", "Sigmoid", "Tanh"]


class _FromOutput(Module):
    """An activation whose derivative is a function of its output."""

    _forward: Callable[..., Array]
    _backward: Callable[..., Array]

    def __call__(self, x: Array, *, need_dx: bool = True) -> tuple[Array, once]:
        """Apply to every element of x [...]; backward: dout -> dx."""
        out, op_backward = self._forward(x), self._backward
        if not need_dx:
            return out, once(lambda dout: None)
        return out, once(lambda dout: op_backward(dout, out))


class ReLU(_FromOutput):
    """``max(x, 0)``.

    Examples
    --------
    >>> import numpy as np
    >>> ReLU()(np.array([-1.0, 2.0], np.float32))[0]
    array([0., 2.], dtype=float32)
    """

    _forward = staticmethod(ops.relu)
    _backward = staticmethod(ops.relu_backward)


class Sigmoid(_FromOutput):
    """``1 / (1 + exp(-x))``.

    Examples
    --------
    >>> import numpy as np
    >>> Sigmoid()(np.array([0.0], np.float32))[0]
    array([0.5], dtype=float32)
    """

    _forward = staticmethod(ops.sigmoid)
    _backward = staticmethod(ops.sigmoid_backward)


class Tanh(_FromOutput):
    """``tanh(x)``.

    Examples
    --------
    >>> import numpy as np
    >>> Tanh()(np.array([0.0], np.float32))[0]
    array([0.], dtype=float32)
    """

    _forward = staticmethod(ops.tanh)
    _backward = staticmethod(ops.tanh_backward)


class GELU(Module):
    """``x Phi(x)``, Phi the normal distribution function; or its approximation through tanh.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        "tanh": ``x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))``, as in GPT-2.

    References
    ----------
    Hendrycks & Gimpel, "Gaussian Error Linear Units", 2016, arXiv:1606.08415.

    Examples
    --------
    >>> import numpy as np
    >>> GELU()(np.array([-10.0, 0.0, 10.0], np.float32))[0].round(3)
    array([-0.,  0., 10.], dtype=float32)
    """

    def __init__(self, approximate: str = "none") -> None:
        choice("approximate", approximate, ("none", "tanh"))
        self.approximate = approximate

    def __call__(self, x: Array, *, need_dx: bool = True) -> tuple[Array, once]:
        """Apply to every element of x [...]; backward: dout -> dx."""
        approximate = self.approximate
        out = ops.gelu(x, approximate)
        if not need_dx:
            return out, once(lambda dout: None)
        return out, once(lambda dout: ops.gelu_backward(dout, x, approximate))
