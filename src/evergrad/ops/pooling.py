"""One vector for each sequence of a packed batch."""

from __future__ import annotations

import numpy as np

from ..backends import active
from . import _check

_MODES = ("mean", "cls")


def pool(
    x: np.ndarray,
    cu_seqlens: np.ndarray,
    mode: str = "mean",
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    r"""The mean of each sequence's rows, or its first row ("cls", Devlin et al. 2019).

    No padding is ever read: sequence s is rows ``cu_seqlens[s]`` to ``cu_seqlens[s + 1]``.

    Parameters
    ----------
    x : ndarray, float32, [total, dim]
        Sequences laid end to end.
    cu_seqlens : ndarray of int, [sequences + 1]
        Where each begins, from 0, and the total.
    mode : {"mean", "cls"}
    out : ndarray, optional
        Written instead of a new array.

    Returns
    -------
    ndarray
        float32, [sequences, dim]. A sequence without rows gives zeros.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for shapes, strides, offsets or a mode that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.pool(np.array([[1.0], [2.0], [9.0]], np.float32), np.array([0, 2, 3]))
    array([[1.5],
           [9. ]], dtype=float32)
    """
    _check.choice("mode", mode, _MODES)
    _check.floats("x", x)
    _check.has_rank("x", x, 2, 2)
    cu_seqlens = _check.offsets("cu_seqlens", cu_seqlens, "x", x.shape[0])
    if out is not None:
        _check.output("out", out, (cu_seqlens.size - 1, x.shape[1]), "x", x)
        _check.no_overlap("out", out, x=x, cu_seqlens=cu_seqlens)
    return active.pool(x, cu_seqlens, mode, out)


def pool_backward(
    dout: np.ndarray,
    cu_seqlens: np.ndarray,
    mode: str = "mean",
    *,
    dx: np.ndarray | None = None,
) -> np.ndarray:
    """Gradient of ``pool``: dout / length for each row of a sequence, or dout for the first alone.

    Parameters
    ----------
    dout : ndarray, float32, [sequences, dim]
    cu_seqlens, mode
        As in the forward call.
    dx : ndarray, optional
        Written instead of a new array.

    Returns
    -------
    ndarray
        float32, [total, dim].

    Raises
    ------
    TypeError, ValueError
        As ``pool``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.pool_backward(np.ones((2, 1), np.float32), np.array([0, 2, 3])).ravel()
    array([0.5, 0.5, 1. ], dtype=float32)
    """
    _check.choice("mode", mode, _MODES)
    _check.floats("dout", dout)
    _check.has_rank("dout", dout, 2, 2)
    cu_seqlens = _check.offsets("cu_seqlens", cu_seqlens)
    if cu_seqlens.size - 1 != dout.shape[0]:
        raise ValueError(
            f"cu_seqlens: expected {dout.shape[0]} sequences like dout, got {cu_seqlens.size - 1}"
        )
    if dx is not None:
        _check.output("dx", dx, (int(cu_seqlens[-1]), dout.shape[1]), "dout", dout)
        _check.no_overlap("dx", dx, dout=dout, cu_seqlens=cu_seqlens)
    return active.pool_backward(dout, cu_seqlens, mode, dx)
