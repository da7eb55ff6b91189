"""Pooling: one vector for each sequence of a packed batch."""

from __future__ import annotations

from .. import ops
from ..ops._check import choice
from ._backward import once
from ._buffer import Array
from .module import Module

__all__ = ["Pool"]


class Pool(Module):
    """The mean of each sequence's vectors, or its first vector.

    Parameters
    ----------
    mode : {"mean", "cls"}

    Examples
    --------
    >>> import numpy as np
    >>> x, cu_seqlens = np.array([[1.0], [2.0], [9.0]], np.float32), np.array([0, 2, 3])
    >>> out, backward = Pool()(x, cu_seqlens)
    >>> out.ravel().tolist(), backward(np.ones_like(out)).ravel().tolist()
    ([1.5, 9.0], [0.5, 0.5, 1.0])
    """

    def __init__(self, mode: str = "mean") -> None:
        choice("mode", mode, ("mean", "cls"))
        self.mode = mode

    def __call__(self, x: Array, cu_seqlens: Array, *, need_dx: bool = True) -> tuple[Array, once]:
        """Pool x [total, dim] to [sequences, dim]; backward: dout -> dx."""
        mode = self.mode
        out = ops.pool(x, cu_seqlens, mode)
        if not need_dx:
            return out, once(lambda dout: None)
        return out, once(lambda dout: ops.pool_backward(dout, cu_seqlens, mode))
