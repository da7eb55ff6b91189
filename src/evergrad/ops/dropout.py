"""Dropout from a counter-based generator: the backward draws the mask again, nothing is saved."""

from __future__ import annotations

import numpy as np

from ..backends import active
from . import _check

_U64 = 2**64 - 1


def dropout(
    x: np.ndarray,
    p: float = 0.5,
    training: bool = True,
    *,
    seed: int,
    offset: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Zero each element with probability p and scale the rest by 1 / (1 - p).

    Element i is kept or not by a hash of (seed, offset + i): the same for every backend, ISA and
    number of threads. Two calls draw different masks when their ranges of counters do not overlap.

    Parameters
    ----------
    x : ndarray, float32, [...]
    p : float
        In [0, 1).
    training : bool
        Without it, ``x`` passes unchanged (copied).
    seed, offset : int
        In [0, 2**64).
    out : ndarray, optional
        Written instead of a new array; may be ``x`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for p, seed or offset out of range, strides, a read-only ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> y = ops.dropout(np.ones(1000, np.float32), 0.25, seed=1)
    >>> sorted({round(v, 3) for v in y.tolist()}), 0.7 < (y > 0).mean() < 0.8
    ([0.0, 1.333], np.True_)
    """
    p = _check.number("p", p, 0.0, 1.0, open_high=True)
    seed = _check.integer("seed", seed, 0, _U64)
    offset = _check.integer("offset", offset, 0, _U64)
    _check.floats("x", x)
    if out is not None:
        _check.output("out", out, x.shape, "x", x)
        _check.in_place_or_apart("out", out, x=x)
    return active.dropout(x, p if training else 0.0, seed, offset, out)


def dropout_backward(
    dout: np.ndarray,
    p: float = 0.5,
    training: bool = True,
    *,
    seed: int,
    offset: int = 0,
    dx: np.ndarray | None = None,
) -> np.ndarray:
    """dx = dout through the mask that ``dropout`` drew with the same seed and offset.

    Parameters
    ----------
    dout : ndarray, float32, [...]
    p, training, seed, offset
        As in the forward call.
    dx : ndarray, optional
        Written instead of a new array; may be ``dout`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``dout``.

    Raises
    ------
    TypeError, ValueError
        As ``dropout``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ones = np.ones(8, np.float32)
    >>> y = ops.dropout(ones, 0.5, seed=3)
    >>> bool((ops.dropout_backward(ones, 0.5, seed=3) == y).all())
    True
    """
    p = _check.number("p", p, 0.0, 1.0, open_high=True)
    seed = _check.integer("seed", seed, 0, _U64)
    offset = _check.integer("offset", offset, 0, _U64)
    _check.floats("dout", dout)
    if dx is not None:
        _check.output("dx", dx, dout.shape, "dout", dout)
        _check.in_place_or_apart("dx", dx, dout=dout)
    return active.dropout_backward(dout, p if training else 0.0, seed, offset, dx)
