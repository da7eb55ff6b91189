"""The last layer of a classifier and its loss in one op: the logits never exist as a whole.

Three ways to the same numbers, counted in products of [rows, in] by [in, classes]: the loss is one,
its backward three (it makes the logits again), and both at once, where the cotangent is known
beforehand, are three in all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import active
from . import _check
from .gemm import gradient_checks
from .loss import REDUCTIONS, per_row, reduce
from .quant import Weight, decoded


def _checks(
    x: np.ndarray,
    weight: np.ndarray,
    target: np.ndarray,
    bias: np.ndarray | None,
    ignore_index: int,
    label_smoothing: float,
    softcap: float,
    reduction: str,
) -> tuple[np.ndarray, tuple[int, float, float]]:
    """The target as int64 [...], and the options of the loss."""
    _check.choice("reduction", reduction, REDUCTIONS)
    _check.floats("x", x)
    _check.has_rank("x", x, 1)
    _check.floats("weight", weight)
    _check.has_rank("weight", weight, 2, 2)
    _check.same_dtype("x", x, weight=weight)
    if weight.shape[1] != x.shape[-1]:
        raise ValueError(
            f"weight: expected [classes, {x.shape[-1]}] to fit x, got shape {weight.shape}"
        )
    _check.optional("bias", bias, weight.shape[:1], "x", x)
    ignore_index = _check.integer("ignore_index", ignore_index, -(2**62), 2**62)
    label_smoothing = _check.number("label_smoothing", label_smoothing, 0.0, 1.0)
    softcap = _check.softcap(softcap)
    target = _check.indices("target", target, weight.shape[0], ignore_index)
    _check.has_shape("target", target, x.shape[:-1])
    return target, (ignore_index, label_smoothing, softcap)


def _shaped(
    result: np.ndarray | None, dx: np.ndarray | None, shape: tuple[int, ...]
) -> np.ndarray | None:
    """The gradient by rows in the shape of x: in the array handed over, if any and needed."""
    if result is None:
        return None
    return result.reshape(shape) if dx is None else dx


def linear_cross_entropy(
    x: np.ndarray,
    weight: Weight,
    target: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    softcap: float = 0.0,
    reduction: str = "mean",
    return_lse: bool = False,
) -> Any:
    r"""``cross_entropy(linear(x, weight, bias), target)``, without ever holding all logits.

    The logits are :math:`z = x W^\top + b`; with a softcap c they are
    :math:`c \tanh(z / c)` (Gemma Team 2024).

    Parameters
    ----------
    x : ndarray, float32, [..., in_features]
    weight : ndarray, float32, [classes, in_features], or QuantizedWeight
        The latter is decoded as a whole, and has no gradient.
    target : ndarray, int64 or int32, [...]
        In [0, classes), or ``ignore_index``.
    bias : ndarray, float32, [classes], optional
    ignore_index : int
        Rows with this target count nowhere.
    label_smoothing : float
        In [0, 1].
    softcap : float
        0: none.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of counted rows (NaN when there is none).
    return_lse : bool
        Also return the log-sum-exp of each row, which the backward needs.

    Returns
    -------
    loss : float, or ndarray of the shape of ``target`` for "none"
    lse : ndarray
        Only with ``return_lse``: float32, the shape of ``target``.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for shapes, strides or options that do not fit.
    IndexError
        For a target out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x, weight = np.ones((1, 3), np.float32), np.zeros((4, 3), np.float32)
    >>> round(ops.linear_cross_entropy(x, weight, np.array([2])), 4)
    1.3863
    """
    matrix = decoded(weight)
    target, options = _checks(
        x, matrix, target, bias, ignore_index, label_smoothing, softcap, reduction
    )
    losses, lse = active.linear_cross_entropy(
        _check.rows(x), matrix, bias, target.reshape(-1), *options
    )
    loss = reduce(losses.reshape(target.shape), reduction, target, options[0])
    return (loss, lse.reshape(target.shape)) if return_lse else loss


def linear_cross_entropy_backward(
    dout: float | np.ndarray,
    x: np.ndarray,
    weight: Weight,
    target: np.ndarray,
    lse: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    softcap: float = 0.0,
    reduction: str = "mean",
    dx: np.ndarray | None = None,
    dweight: np.ndarray | None = None,
    dbias: np.ndarray | None = None,
    need_dx: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
) -> tuple[np.ndarray | Any, np.ndarray | Any, np.ndarray | Any]:
    r"""Gradients of ``linear_cross_entropy``; the logits are computed again, block by block.

    With dz the gradient of ``cross_entropy``, times :math:`1 - (z/c)^2` under a softcap:
    dx = dz W, dweight += dz^T x, dbias += sum of the rows of dz.

    Parameters
    ----------
    dout : float, or ndarray of the shape of ``target`` for reduction "none"
    x, weight, target, lse : ndarray
        What ``linear_cross_entropy`` was given and returned.
    bias, ignore_index, label_smoothing, softcap, reduction
        As in the forward call.
    dx : ndarray, optional
        Overwritten.
    dweight, dbias : ndarray, optional
        Accumulated into; without them new arrays come back.
    need_dx, need_dweight, need_dbias : bool
        What is not needed is not computed and comes back as None.

    Returns
    -------
    dx, dweight, dbias : ndarray or None
        ``dbias`` is None without a bias.

    Raises
    ------
    TypeError, ValueError, IndexError
        As ``linear_cross_entropy``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x, weight, target = np.ones((1, 1), np.float32), np.zeros((2, 1), np.float32), np.array([0])
    >>> loss, lse = ops.linear_cross_entropy(x, weight, target, return_lse=True)
    >>> dx, dweight, _ = ops.linear_cross_entropy_backward(1.0, x, weight, target, lse)
    >>> dweight.round(3)
    array([[-0.5],
           [ 0.5]], dtype=float32)
    """
    matrix = decoded(weight, need_dweight)
    target, options = _checks(
        x, matrix, target, bias, ignore_index, label_smoothing, softcap, reduction
    )
    _check.required("lse", lse, target.shape, "x", x)
    drows = per_row(dout, reduction, target, options[0], x)
    gradient_checks(x, weight, dx, dweight, dbias, dout=drows, lse=lse, bias=bias, target=target)
    result, dweight, dbias = active.linear_cross_entropy_backward(
        drows.reshape(-1), _check.rows(x), matrix, bias, target.reshape(-1), lse.reshape(-1),
        *options, _check.rows(dx), dweight, dbias,
        need_dx, need_dweight, need_dbias and bias is not None,
    )  # fmt: skip
    return _shaped(result, dx, x.shape), dweight, dbias


def linear_cross_entropy_with_grads(
    dout: float | np.ndarray,
    x: np.ndarray,
    weight: Weight,
    target: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    softcap: float = 0.0,
    reduction: str = "mean",
    dx: np.ndarray | None = None,
    dweight: np.ndarray | None = None,
    dbias: np.ndarray | None = None,
    need_dx: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
) -> Any:
    r"""Loss and gradients of ``linear_cross_entropy`` in one pass over chunks of rows.

    For a training step, where the cotangent of the loss is known before the loss is. The logits of
    a chunk are kept until they become their own gradient, so the work is three products of
    matrices where forward and backward apart take four. Scratch is at most 64 MB (or one row).

    Parameters
    ----------
    dout : float, or ndarray of the shape of ``target`` for reduction "none"
        The cotangent of the loss: 1 for the plain gradient.
    x, weight, target, bias, ignore_index, label_smoothing, softcap, reduction
        As for ``linear_cross_entropy``.
    dx, dweight, dbias, need_dx, need_dweight, need_dbias
        As for ``linear_cross_entropy_backward``.

    Returns
    -------
    loss : float, or ndarray of the shape of ``target`` for "none"
        Not multiplied by ``dout``.
    dx, dweight, dbias : ndarray or None
        ``dbias`` is None without a bias.

    Raises
    ------
    TypeError, ValueError, IndexError
        As ``linear_cross_entropy``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x, weight, target = np.ones((1, 1), np.float32), np.zeros((2, 1), np.float32), np.array([0])
    >>> loss, dx, dweight, _ = ops.linear_cross_entropy_with_grads(1.0, x, weight, target)
    >>> round(loss, 4), dweight.ravel().tolist()
    (0.6931, [-0.5, 0.5])
    """
    matrix = decoded(weight, need_dweight)
    target, options = _checks(
        x, matrix, target, bias, ignore_index, label_smoothing, softcap, reduction
    )
    drows = per_row(dout, reduction, target, options[0], x)
    gradient_checks(x, weight, dx, dweight, dbias, dout=drows, bias=bias, target=target)
    losses, result, dweight, dbias = active.linear_cross_entropy_with_grads(
        drows.reshape(-1), _check.rows(x), matrix, bias, target.reshape(-1),
        *options, _check.rows(dx), dweight, dbias,
        need_dx, need_dweight, need_dbias and bias is not None,
    )  # fmt: skip
    loss = reduce(losses.reshape(target.shape), reduction, target, options[0])
    return loss, _shaped(result, dx, x.shape), dweight, dbias
