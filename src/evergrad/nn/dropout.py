"""Dropout: zeros with probability p, the mask recomputed rather than stored."""

from __future__ import annotations

from .. import ops
from ._backward import once
from ._buffer import Array
from .module import Module
from .random import RandomStream

__all__ = ["Dropout"]


class Dropout(Module):
    """In training mode, set elements to 0 with probability p and scale the others by 1 / (1 - p).

    The mask is a function of the stream's seed and of a counter that every call moves on, so
    runs repeat exactly; `Module.random_state` holds all that a resumed run needs.

    Parameters
    ----------
    p : float, default 0.5
        Probability of dropping, in [0, 1).
    stream : RandomStream, optional
        Source of the masks, shared among the layers of a model; default: one of its
        own, with a seed from fresh entropy.

    Raises
    ------
    ValueError
        When p lies outside [0, 1).

    References
    ----------
    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.

    Examples
    --------
    >>> import numpy as np
    >>> dropout = Dropout(0.5)
    >>> out, backward = dropout(np.ones((100, 100), np.float32))
    >>> np.unique(out).tolist()
    [0.0, 2.0]
    >>> bool((backward(np.ones_like(out)) == out).all())
    True
    """

    def __init__(self, p: float = 0.5, *, stream: RandomStream | None = None) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"p must lie in [0, 1), got {p}")
        self.p = p
        self.stream = RandomStream() if stream is None else stream

    @property
    def active(self) -> bool:
        """Whether a call drops anything."""
        return self.training and self.p > 0

    def __call__(self, x: Array, *, need_dx: bool = True) -> tuple[Array, once]:
        """Drop elements of x [...]; backward: dout -> dx."""
        if not self.active:
            return x, once(lambda dout: dout if need_dx else None)
        p, seed, offset = self.p, self.stream.seed, self.stream.take(x.size)
        out = ops.dropout(x, p, True, seed=seed, offset=offset)
        if not need_dx:
            return out, once(lambda dout: None)
        return out, once(lambda dout: ops.dropout_backward(dout, p, True, seed=seed, offset=offset))
