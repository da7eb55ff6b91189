"""Softmax, its logarithm, and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..backends import active
from . import _check


def _axis_last(x: np.ndarray, dim: int) -> tuple[np.ndarray, bool]:
    """``x`` with axis ``dim`` last and contiguous, and whether it was moved (copied)."""
    if type(dim) is int and dim == -1 and x.ndim:
        return x, False
    _check.has_rank("x", x, 1)
    dim = _check.integer("dim", dim, -x.ndim, x.ndim - 1) % x.ndim
    if dim == x.ndim - 1:
        return x, False
    return np.ascontiguousarray(np.moveaxis(x, dim, -1)), True


def _axis_back(result: np.ndarray, dim: int, out: np.ndarray | None) -> np.ndarray:
    result = np.moveaxis(result, -1, dim)
    if out is None:
        return np.ascontiguousarray(result)
    out[...] = result
    return out


def _along(
    op: Callable[..., np.ndarray], x: np.ndarray, dim: int, out: np.ndarray | None
) -> np.ndarray:
    _check.floats("x", x)
    moved, is_moved = _axis_last(x, dim)
    if out is not None:
        _check.output("out", out, x.shape, "x", x)
        _check.in_place_or_apart("out", out, x=x)
    if x.size == 0:
        return np.empty(x.shape, x.dtype) if out is None else out
    result = op(moved, None if is_moved else out)
    return _axis_back(result, dim, out) if is_moved else result


def _along_backward(
    op: Callable[..., np.ndarray],
    dout: np.ndarray,
    out: np.ndarray,
    dim: int,
    dx: np.ndarray | None,
) -> np.ndarray:
    _check.floats("out", out)
    _check.required("dout", dout, out.shape, "out", out)
    if dx is not None:
        _check.output("dx", dx, out.shape, "out", out)
        _check.in_place_or_apart("dx", dx, dout=dout, out=out)
    moved, is_moved = _axis_last(out, dim)
    if out.size == 0:
        return np.empty(out.shape, out.dtype) if dx is None else dx
    moved_dout, _ = _axis_last(dout, dim)
    result = op(moved_dout, moved, None if is_moved else dx)
    return _axis_back(result, dim, dx) if is_moved else result


def softmax(x: np.ndarray, dim: int = -1, *, out: np.ndarray | None = None) -> np.ndarray:
    r"""Softmax along one axis: :math:`y_i = e^{x_i - m} / \sum_j e^{x_j - m}`, m the maximum.

    Parameters
    ----------
    x : ndarray, float32, [...]
    dim : int
        The axis that sums to one. The last is read in place; another one costs a transposed copy.
    out : ndarray, optional
        Written instead of a new array; may be ``x`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``x``. A row of minus infinities gives zeros, not NaN.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for wrong shapes, strides, a read-only ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.softmax(np.array([0.0, 0.0], np.float32))
    array([0.5, 0.5], dtype=float32)
    """
    return _along(active.softmax, x, dim, out)


def softmax_backward(
    dout: np.ndarray, out: np.ndarray, dim: int = -1, *, dx: np.ndarray | None = None
) -> np.ndarray:
    r"""Gradient of softmax: :math:`dx_i = y_i (dy_i - \sum_j dy_j y_j)`.

    Parameters
    ----------
    dout : ndarray, float32, [...]
        The cotangent of the output.
    out : ndarray, float32, the shape of ``dout``
        What ``softmax`` returned.
    dim : int
        The axis that sums to one.
    dx : ndarray, optional
        Written instead of a new array; may be ``dout`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``out``.

    Raises
    ------
    TypeError, ValueError
        As ``softmax``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> y = np.array([0.5, 0.5], np.float32)
    >>> ops.softmax_backward(np.array([1.0, 0.0], np.float32), y)
    array([ 0.25, -0.25], dtype=float32)
    """
    return _along_backward(active.softmax_backward, dout, out, dim, dx)


def log_softmax(x: np.ndarray, dim: int = -1, *, out: np.ndarray | None = None) -> np.ndarray:
    r"""Logarithm of softmax along one axis: :math:`y_i = x_i - m - \log \sum_j e^{x_j - m}`.

    Parameters
    ----------
    x : ndarray, float32, [...]
    dim : int
        The axis whose exponentials sum to one. The last is read in place; another one costs a
        transposed copy.
    out : ndarray, optional
        Written instead of a new array; may be ``x`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``x``. A row of minus infinities stays what it is: the logarithm of
        the zeros that ``softmax`` gives for it.

    Raises
    ------
    TypeError, ValueError
        As ``softmax``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.log_softmax(np.array([0.0, 0.0], np.float32)).round(3)
    array([-0.693, -0.693], dtype=float32)
    """
    return _along(active.log_softmax, x, dim, out)


def log_softmax_backward(
    dout: np.ndarray, out: np.ndarray, dim: int = -1, *, dx: np.ndarray | None = None
) -> np.ndarray:
    r"""Gradient of log_softmax: :math:`dx_i = dy_i - e^{y_i} \sum_j dy_j`.

    Parameters
    ----------
    dout : ndarray, float32, [...]
        The cotangent of the output.
    out : ndarray, float32, the shape of ``dout``
        What ``log_softmax`` returned.
    dim : int
        As in the forward call.
    dx : ndarray, optional
        Written instead of a new array; may be ``dout`` or ``out`` itself.

    Returns
    -------
    ndarray
        float32, the shape of ``out``.

    Raises
    ------
    TypeError, ValueError
        As ``softmax``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> y = np.log(np.array([0.5, 0.5], np.float32))
    >>> ops.log_softmax_backward(np.array([1.0, 0.0], np.float32), y)
    array([ 0.5, -0.5], dtype=float32)
    """
    return _along_backward(active.log_softmax_backward, dout, out, dim, dx)
