"""Losses and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import active
from . import _check

REDUCTIONS = ("mean", "sum", "none")


def _mean(total: float, count: int) -> float:
    return total / count if count else float("nan")


def _reduced(losses: np.ndarray, reduction: str, count: int) -> float | np.ndarray:
    if reduction == "none":
        return losses
    # Summed in float64: a mean over a million tokens keeps its last digits.
    total = float(np.add.reduce(losses, axis=None, dtype=np.float64))
    return total if reduction == "sum" else _mean(total, count)


def _counted(target: np.ndarray, ignore_index: int) -> int:
    return int(np.count_nonzero(target != ignore_index))


def reduce(
    losses: np.ndarray, reduction: str, target: np.ndarray, ignore_index: int
) -> float | np.ndarray:
    """The losses of rows; the mean is over those that count."""
    count = _counted(target, ignore_index) if reduction == "mean" else 0
    return _reduced(losses, reduction, count)


def _cotangent(
    dout: Any, reduction: str, shape: tuple[int, ...], like: np.ndarray, count: int
) -> np.ndarray:
    """``dout`` as an array: one number for a reduced loss, the losses' shape for "none".

    The mean over ``count`` losses hands each its part.
    """
    if reduction == "none":
        _check.required("dout", dout, shape, "input", like)
        return dout
    if isinstance(dout, np.ndarray) and dout.size == 1:
        dout = dout.item()
    each = _check.real("dout", dout)
    return np.array([each / max(count, 1) if reduction == "mean" else each], like.dtype)


def per_row(
    dout: Any, reduction: str, target: np.ndarray, ignore_index: int, like: np.ndarray
) -> np.ndarray:
    """The cotangent of a reduced loss as one for each row's loss."""
    count = _counted(target, ignore_index) if reduction == "mean" else 0
    cotangent = _cotangent(dout, reduction, target.shape, like, count)
    if reduction == "none":
        return cotangent
    return np.full(target.shape, cotangent[0], like.dtype)


def _cross_entropy_checks(
    logits: np.ndarray,
    target: np.ndarray,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> tuple[np.ndarray, int, float]:
    _check.choice("reduction", reduction, REDUCTIONS)
    _check.floats("logits", logits)
    _check.has_rank("logits", logits, 1)
    ignore_index = _check.integer("ignore_index", ignore_index, -(2**62), 2**62)
    label_smoothing = _check.number("label_smoothing", label_smoothing, 0.0, 1.0)
    target = _check.indices("target", target, logits.shape[-1], ignore_index)
    _check.has_shape("target", target, logits.shape[:-1])
    return target, ignore_index, label_smoothing


def cross_entropy(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    return_lse: bool = False,
) -> Any:
    r"""Cross-entropy of softmax(logits) against class indices.

    Per row, with s the smoothing: :math:`\mathrm{lse} - (1 - s)\,z_t - \tfrac{s}{C} \sum_j z_j`.

    Parameters
    ----------
    logits : ndarray, float32, [..., classes]
    target : ndarray, int64 or int32, [...]
        In [0, classes), or ``ignore_index``.
    ignore_index : int
        Rows with this target count nowhere.
    label_smoothing : float
        In [0, 1] (Szegedy et al. 2016).
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
    >>> round(ops.cross_entropy(np.zeros((1, 4), np.float32), np.array([2])), 4)
    1.3863
    """
    target, ignore_index, label_smoothing = _cross_entropy_checks(
        logits, target, ignore_index, label_smoothing, reduction
    )
    losses, lse = active.cross_entropy(
        _check.rows(logits), target.reshape(-1), ignore_index, label_smoothing
    )
    loss = reduce(losses.reshape(target.shape), reduction, target, ignore_index)
    return (loss, lse.reshape(target.shape)) if return_lse else loss


def cross_entropy_backward(
    dout: float | np.ndarray,
    logits: np.ndarray,
    target: np.ndarray,
    lse: np.ndarray,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    dlogits: np.ndarray | None = None,
) -> np.ndarray:
    r"""Gradient of ``cross_entropy``: per counted row
    :math:`d \cdot (e^{z_j - \mathrm{lse}} - (1 - s)[j = t] - s/C)`, zero for an ignored one.

    Parameters
    ----------
    dout : float, or ndarray of the shape of ``target`` for reduction "none"
    logits, target, lse : ndarray
        What ``cross_entropy`` was given and returned.
    ignore_index, label_smoothing, reduction
        As in the forward call.
    dlogits : ndarray, optional
        Written instead of a new array; may be ``logits`` itself, which saves its memory.

    Returns
    -------
    ndarray
        float32, the shape of ``logits``.

    Raises
    ------
    TypeError, ValueError, IndexError
        As ``cross_entropy``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> logits, target = np.zeros((1, 2), np.float32), np.array([0])
    >>> loss, lse = ops.cross_entropy(logits, target, return_lse=True)
    >>> ops.cross_entropy_backward(1.0, logits, target, lse).round(3)
    array([[-0.5,  0.5]], dtype=float32)
    """
    target, ignore_index, label_smoothing = _cross_entropy_checks(
        logits, target, ignore_index, label_smoothing, reduction
    )
    _check.required("lse", lse, target.shape, "logits", logits)
    drows = per_row(dout, reduction, target, ignore_index, logits)
    if dlogits is not None:
        _check.output("dlogits", dlogits, logits.shape, "logits", logits)
        _check.in_place_or_apart("dlogits", dlogits, logits=logits)
        _check.no_overlap("dlogits", dlogits, lse=lse, dout=drows, target=target)
    result = active.cross_entropy_backward(
        drows.reshape(-1), _check.rows(logits), target.reshape(-1), lse.reshape(-1),
        ignore_index, label_smoothing, _check.rows(dlogits),
    )  # fmt: skip
    return result.reshape(logits.shape) if dlogits is None else dlogits


def _pair_checks(input: np.ndarray, target: np.ndarray, reduction: str) -> None:
    _check.choice("reduction", reduction, REDUCTIONS)
    _check.floats("input", input)
    _check.required("target", target, input.shape, "input", input)


def _pair_dx(
    dx: np.ndarray | None, input: np.ndarray, target: np.ndarray, cotangent: np.ndarray
) -> None:
    if dx is not None:
        _check.output("dx", dx, input.shape, "input", input)
        _check.in_place_or_apart("dx", dx, input=input, target=target, dout=cotangent)


def _pair_cotangent(dout: Any, reduction: str, input: np.ndarray) -> np.ndarray:
    return _cotangent(dout, reduction, input.shape, input, input.size)


def mse_loss(input: np.ndarray, target: np.ndarray, *, reduction: str = "mean") -> float | Any:
    """Squared error (input - target)**2, reduced.

    Parameters
    ----------
    input, target : ndarray, float32, [...]
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    float, or ndarray of the shape of ``input`` for "none"

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for shapes or strides that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.mse_loss(np.zeros(2, np.float32), np.array([1.0, 3.0], np.float32))
    5.0
    """
    _pair_checks(input, target, reduction)
    if reduction == "none":
        return active.mse_loss(input, target, None)
    total = active.mse_loss_sum(input, target)
    return total if reduction == "sum" else _mean(total, input.size)


def mse_loss_backward(
    dout: float | np.ndarray,
    input: np.ndarray,
    target: np.ndarray,
    *,
    reduction: str = "mean",
    dx: np.ndarray | None = None,
) -> np.ndarray:
    """dx = 2 (input - target) dout, divided by the number of elements for "mean".

    Parameters
    ----------
    dout : float, or ndarray of the shape of ``input`` for reduction "none"
    input, target : ndarray, float32, [...]
    reduction : {"mean", "sum", "none"}
    dx : ndarray, optional
        Written instead of a new array.

    Returns
    -------
    ndarray
        float32, the shape of ``input``.

    Raises
    ------
    TypeError, ValueError
        As ``mse_loss``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.mse_loss_backward(1.0, np.zeros(2, np.float32), np.array([1.0, 3.0], np.float32))
    array([-1., -3.], dtype=float32)
    """
    _pair_checks(input, target, reduction)
    cotangent = _pair_cotangent(dout, reduction, input)
    _pair_dx(dx, input, target, cotangent)
    return active.mse_loss_backward(cotangent, input, target, dx)


def binary_cross_entropy_with_logits(
    input: np.ndarray, target: np.ndarray, *, reduction: str = "mean"
) -> float | Any:
    r"""Binary cross-entropy of sigmoid(input): :math:`\max(x, 0) - x t + \log(1 + e^{-|x|})`.

    Parameters
    ----------
    input : ndarray, float32, [...]
        Logits.
    target : ndarray, float32, the shape of ``input``
        Probabilities.
    reduction : {"mean", "sum", "none"}

    Returns
    -------
    float, or ndarray of the shape of ``input`` for "none"

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for shapes or strides that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    >>> round(ops.binary_cross_entropy_with_logits(zero, one), 4)
    0.6931
    """
    _pair_checks(input, target, reduction)
    if reduction == "none":
        return active.binary_cross_entropy_with_logits(input, target, None)
    total = active.binary_cross_entropy_with_logits_sum(input, target)
    return total if reduction == "sum" else _mean(total, input.size)


def binary_cross_entropy_with_logits_backward(
    dout: float | np.ndarray,
    input: np.ndarray,
    target: np.ndarray,
    *,
    reduction: str = "mean",
    dx: np.ndarray | None = None,
) -> np.ndarray:
    """dx = (sigmoid(input) - target) dout, divided by the number of elements for "mean".

    Parameters
    ----------
    dout : float, or ndarray of the shape of ``input`` for reduction "none"
    input, target : ndarray, float32, [...]
    reduction : {"mean", "sum", "none"}
    dx : ndarray, optional
        Written instead of a new array.

    Returns
    -------
    ndarray
        float32, the shape of ``input``.

    Raises
    ------
    TypeError, ValueError
        As ``binary_cross_entropy_with_logits``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    >>> ops.binary_cross_entropy_with_logits_backward(1.0, zero, one)
    array([-0.5], dtype=float32)
    """
    _pair_checks(input, target, reduction)
    cotangent = _pair_cotangent(dout, reduction, input)
    _pair_dx(dx, input, target, cotangent)
    return active.binary_cross_entropy_with_logits_backward(cotangent, input, target, dx)
