"""Optimizer steps over flat buffers, in place, one pass over memory each."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import active
from . import _check


def _flat(name: str, x: Any, param: np.ndarray | None = None, *, writable: bool = True) -> None:
    if param is not None and _check.fits(x, param.shape, param):
        return
    _check.floats(name, x)
    _check.has_rank(name, x, 1, 1)
    if param is not None:
        _check.has_shape(name, x, param.shape)
        _check.same_dtype("param", param, **{name: x})
    if writable and not x.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")


def _apart(**buffers: np.ndarray | None) -> None:
    while len(buffers) > 1:
        name, x = buffers.popitem()
        _check.no_overlap(name, x, **buffers)


def _buffers(param: Any, grad: Any, **state: Any) -> None:
    """Flat and of one length; all but ``grad`` are written, and none meets another."""
    if type(param) is np.ndarray and param.ndim == 1:
        shape = param.shape
        pairs = [grad, shape, param, shape]
        for x in state.values():
            pairs += x, shape
        given = not any(x is None for x in pairs)
        if given and active.plain(1 + len(state), *pairs):
            return
    _flat("param", param)
    _flat("grad", grad, param, writable=False)
    for name, x in state.items():
        _flat(name, x, param)
    _apart(param=param, grad=grad, **state)


def adam_step(
    param: np.ndarray,
    grad: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    *,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = True,
    grad_scale: float = 1.0,
) -> None:
    r"""One step of AdamW (Loshchilov & Hutter 2019), or of Adam (Kingma & Ba 2015), in place.

    With g = grad * grad_scale (+ weight_decay * param when not decoupled):
    m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    param = (1 - lr * weight_decay) param  (decoupled) - lr * mhat / (sqrt(vhat) + eps),
    mhat = m / (1 - beta1^step), vhat = v / (1 - beta2^step).

    Parameters
    ----------
    param, grad, exp_avg, exp_avg_sq : ndarray, float32, [n]
        All but ``grad`` are updated.
    step : int
        Counts from 1.
    lr, beta1, beta2, eps, weight_decay : float
    decoupled : bool
        AdamW rather than Adam with an L2 term.
    grad_scale : float
        Multiplies the gradient: clipping folded into the step.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for lengths that differ, strides, read-only buffers, betas
        outside [0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> param, grad = np.ones((2, 1), np.float32)
    >>> m, v = np.zeros((2, 1), np.float32)
    >>> ops.adam_step(param, grad, m, v, step=1, lr=0.1)
    >>> param.round(3)
    array([0.9], dtype=float32)
    """
    _buffers(param, grad, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    active.adam_step(
        param,
        grad,
        exp_avg,
        exp_avg_sq,
        _check.integer("step", step, 1, 2**62),
        _check.number("lr", lr),
        _check.number("beta1", beta1, 0.0, 1.0, open_high=True),
        _check.number("beta2", beta2, 0.0, 1.0, open_high=True),
        _check.number("eps", eps, 0.0),
        _check.number("weight_decay", weight_decay),
        bool(decoupled),
        _check.number("grad_scale", grad_scale),
    )


def sgd_step(
    param: np.ndarray,
    grad: np.ndarray,
    momentum_buffer: np.ndarray | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    grad_scale: float = 1.0,
    first: bool = False,
) -> None:
    """One step of gradient descent, with momentum when a buffer is given, in place.

    With g = grad * grad_scale + weight_decay * param: buffer = momentum * buffer +
    (1 - dampening) * g (the first time: buffer = g); d = g + momentum * buffer for Nesterov, else
    the buffer; param -= lr * d.

    Parameters
    ----------
    param, grad : ndarray, float32, [n]
    momentum_buffer : ndarray, float32, [n], optional
        Needed when ``momentum`` is not 0.
    lr, momentum, dampening, weight_decay, grad_scale : float
    nesterov, first : bool

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for lengths that differ, strides, read-only buffers, a missing
        momentum buffer.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> param = np.ones(1, np.float32)
    >>> ops.sgd_step(param, np.ones(1, np.float32), lr=0.5)
    >>> param
    array([0.5], dtype=float32)
    """
    state = {} if momentum_buffer is None else {"momentum_buffer": momentum_buffer}
    _buffers(param, grad, **state)
    if momentum_buffer is None and momentum != 0.0:
        raise ValueError(
            "momentum_buffer: expected an array for a momentum that is not 0, got None"
        )
    active.sgd_step(
        param,
        grad,
        momentum_buffer,
        _check.number("lr", lr),
        _check.number("momentum", momentum),
        _check.number("dampening", dampening),
        bool(nesterov),
        _check.number("weight_decay", weight_decay),
        _check.number("grad_scale", grad_scale),
        bool(first),
    )


def rmsprop_step(
    param: np.ndarray,
    grad: np.ndarray,
    square_avg: np.ndarray,
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    grad_scale: float = 1.0,
) -> None:
    """One step of RMSprop (Tieleman & Hinton 2012) in place.

    With g = grad * grad_scale + weight_decay * param: v = alpha v + (1 - alpha) g^2;
    param -= lr * g / (sqrt(v) + eps).

    Parameters
    ----------
    param, grad, square_avg : ndarray, float32, [n]
    lr, alpha, eps, weight_decay, grad_scale : float

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for lengths that differ, strides, read-only buffers.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> param, square_avg = np.ones(1, np.float32), np.zeros(1, np.float32)
    >>> ops.rmsprop_step(param, np.ones(1, np.float32), square_avg, lr=0.01)
    >>> param.round(3)
    array([0.9], dtype=float32)
    """
    _buffers(param, grad, square_avg=square_avg)
    active.rmsprop_step(
        param,
        grad,
        square_avg,
        _check.number("lr", lr),
        _check.number("alpha", alpha, 0.0, 1.0),
        _check.number("eps", eps, 0.0),
        _check.number("weight_decay", weight_decay),
        _check.number("grad_scale", grad_scale),
    )


def _rows_checks(param: np.ndarray, rows: np.ndarray, **others: np.ndarray) -> np.ndarray:
    """``param`` and others [num, dim], all but ``grad`` writable; ``rows`` rising indices."""
    for name, x in {"param": param, **others}.items():
        _check.floats(name, x)
        _check.has_rank(name, x, 2, 2)
        _check.has_shape(name, x, param.shape)
        _check.same_dtype("param", param, **{name: x})
        if name != "grad" and not x.flags.writeable:
            raise ValueError(f"{name}: expected a writable array, got a read-only one")
    _apart(param=param, **others)
    rows = _check.indices("rows", rows, param.shape[0])
    _check.has_rank("rows", rows, 1, 1)
    if (rows[1:] <= rows[:-1]).any():
        raise ValueError("rows: expected indices that rise, each once, got others (numpy.unique)")
    _check_apart_from_indices(param, others, rows=rows)
    return rows


def _check_apart_from_indices(
    param: np.ndarray, others: dict[str, np.ndarray], **indices: np.ndarray
) -> None:
    """What is written is none of the indices, which are read meanwhile."""
    for name, x in {"param": param, **others}.items():
        if name != "grad":
            _check.no_overlap(name, x, **indices)


def adam_step_rows(
    param: np.ndarray,
    grad: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    rows: np.ndarray,
    skipped: np.ndarray,
    *,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = True,
    grad_scale: float = 1.0,
) -> None:
    r"""``adam_step`` of the rows of a table that have a gradient, in place: **lazy**, not the same.

    A row without a gradient is not touched, which for an embedding is nearly all of the memory.
    When it has one again, what k skipped steps do to it follows first where a formula has it:
    m = beta1^k m, v = beta2^k v and, with decoupled decay, param = (1 - lr weight_decay)^k param
    at today's learning rate. Left out is what the dense step would have gone on moving param by
    through the fading m, and the L2 term of skipped steps when not decoupled. A row that skipped
    nothing is updated to the bits of ``adam_step``.

    Parameters
    ----------
    param, grad, exp_avg, exp_avg_sq : ndarray, float32, [num, dim]
        All but ``grad`` are updated, in the rows named.
    rows : ndarray, int64 or int32, [k]
        Rising: ``numpy.unique`` of the indices that were looked up.
    skipped : ndarray, int64 or int32, [k]
        Steps since the last update of each of them that it was not part of.
    step, lr, beta1, beta2, eps, weight_decay, decoupled, grad_scale
        As in ``adam_step``.

    Raises
    ------
    TypeError, ValueError
        As ``adam_step``; for rows that do not rise.
    IndexError
        For a row out of range, a negative number of steps.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> param, grad = np.ones((2, 3, 1), np.float32)
    >>> m, v = np.zeros((2, 3, 1), np.float32)
    >>> ops.adam_step_rows(param, grad, m, v, np.array([2]), np.array([0]), step=1, lr=0.1)
    >>> param.round(3).ravel()
    array([1. , 1. , 0.9], dtype=float32)
    """
    state = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    rows = _rows_checks(param, rows, grad=grad, **state)
    skipped = _check.indices("skipped", skipped, 2**62)
    _check.has_shape("skipped", skipped, rows.shape)
    _check_apart_from_indices(param, state, skipped=skipped)
    active.adam_step_rows(
        param,
        grad,
        exp_avg,
        exp_avg_sq,
        rows,
        skipped,
        _check.integer("step", step, 1, 2**62),
        _check.number("lr", lr),
        _check.number("beta1", beta1, 0.0, 1.0, open_high=True),
        _check.number("beta2", beta2, 0.0, 1.0, open_high=True),
        _check.number("eps", eps, 0.0),
        _check.number("weight_decay", weight_decay),
        bool(decoupled),
        _check.number("grad_scale", grad_scale),
    )


def sgd_step_rows(
    param: np.ndarray,
    grad: np.ndarray,
    rows: np.ndarray,
    *,
    lr: float,
    grad_scale: float = 1.0,
) -> None:
    """``sgd_step`` without momentum and decay of the rows of a table that have a gradient.

    To the bits what the dense step does: where the gradient is 0, it changes nothing.

    Parameters
    ----------
    param, grad : ndarray, float32, [num, dim]
    rows : ndarray, int64 or int32, [k]
        Rising: ``numpy.unique`` of the indices that were looked up.
    lr, grad_scale : float

    Raises
    ------
    TypeError, ValueError
        As ``sgd_step``; for rows that do not rise.
    IndexError
        For a row out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> param, grad = np.ones((2, 3, 1), np.float32)
    >>> ops.sgd_step_rows(param, grad, np.array([1]), lr=0.5)
    >>> param.ravel()
    array([1. , 0.5, 1. ], dtype=float32)
    """
    rows = _rows_checks(param, rows, grad=grad)
    active.sgd_step_rows(
        param, grad, rows, _check.number("lr", lr), _check.number("grad_scale", grad_scale)
    )


def grad_norm(grad: np.ndarray) -> float:
    """The Euclidean norm of a flat gradient, accumulated in float64 in a fixed order.

    Parameters
    ----------
    grad : ndarray, float32, [n]

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for more than one dimension or strides.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.grad_norm(np.array([3.0, 4.0], np.float32))
    5.0
    """
    _flat("grad", grad, writable=False)
    return float(active.grad_norm(grad))
