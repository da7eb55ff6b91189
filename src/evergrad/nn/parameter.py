"""Parameter: an array that is learned, with its gradient beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..ops import QuantizedWeight

__all__ = ["Parameter"]


class Parameter:
    """A learned array and its gradient.

    Parameters
    ----------
    data : array_like
        Initial values. A float64 array stays so (the reference backend computes in it), all
        else becomes float32.
    requires_grad : bool, default True
        False: frozen. Layers skip its gradient, and `grad` is None.

    Attributes
    ----------
    data : ndarray or ops.QuantizedWeight
        The values; in few bits they cannot learn. After `flatten_` a view into the flat buffer:
        write with `data[...] = `.
    grad : ndarray or None
        The gradient, of `data`'s shape. Every backward pass adds to it.

    Examples
    --------
    >>> weight = Parameter([[1.0, 2.0]])
    >>> weight.grad
    array([[0., 0.]], dtype=float32)
    >>> weight.requires_grad = False
    >>> weight.grad is None
    True
    """

    __slots__ = ("data", "grad")

    def __init__(self, data: npt.ArrayLike, requires_grad: bool = True) -> None:
        is_double = isinstance(data, np.ndarray) and data.dtype == np.float64
        dtype = np.float64 if is_double else np.float32
        self.data: Any = np.ascontiguousarray(data, dtype)
        self.grad: npt.NDArray[Any] | Any = None
        self.requires_grad = requires_grad

    @property
    def requires_grad(self) -> bool:
        return self.grad is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and isinstance(self.data, QuantizedWeight):
            raise ValueError("a parameter in few bits cannot learn: requires_grad must stay False")
        if value and self.grad is None:
            # Not zeros_like, which writes: these pages are taken when they are first written to.
            self.grad = np.zeros(self.data.shape, self.data.dtype)
        elif not value:
            self.grad = None

    def __repr__(self) -> str:
        frozen = "" if self.requires_grad else ", frozen"
        kind = getattr(self.data, "kind", self.data.dtype)
        return f"Parameter(shape={self.data.shape}, dtype={kind}{frozen})"
