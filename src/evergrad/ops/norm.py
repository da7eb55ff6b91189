"""Layer normalisation and its gradient."""

from __future__ import annotations

import math

import numpy as np

from ..backends import active
from . import _check


def _rows_of(x: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int]:
    """How many rows, and how many numbers in each, when the trailing ``shape`` is normalised."""
    return math.prod(x.shape[: x.ndim - len(shape)]), math.prod(shape)


def layer_norm(
    x: np.ndarray,
    normalized_shape: int | tuple[int, ...],
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
    *,
    return_stats: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Layer norm (Ba et al. 2016): :math:`(x - \mathrm{mean}) \cdot \mathrm{rstd} \cdot w + b`.

    The variance is the mean of squared deviations from the mean (two passes), never
    E[x^2] - mean^2.

    Parameters
    ----------
    x : ndarray, float32, [..., *normalized_shape]
    normalized_shape : int or tuple of int
        The trailing dimensions that are normalised together.
    weight, bias : ndarray, float32, normalized_shape, optional
    eps : float
        Added to the variance; at least 0.
    return_stats : bool
        Also return what the backward needs.
    out : ndarray, optional
        Written instead of a new array; may be ``x`` itself.

    Returns
    -------
    out : ndarray
        float32, the shape of ``x``.
    mean, rstd : ndarray
        Only with ``return_stats``: float32, the leading shape of ``x``; rstd = 1/sqrt(var + eps).

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for shapes that do not fit, strides, a read-only ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.layer_norm(np.array([[1.0, 3.0]], np.float32), 2).round(3)
    array([[-1.,  1.]], dtype=float32)
    """
    _check.floats("x", x)
    whole = (int, np.integer)
    shape = (normalized_shape,) if isinstance(normalized_shape, whole) else normalized_shape
    if not isinstance(shape, (tuple, list)) or not all(isinstance(n, whole) for n in shape):
        raise TypeError(
            "normalized_shape: expected an integer or a tuple of integers, "
            f"got {normalized_shape!r}"
        )
    shape = tuple(int(n) for n in shape)
    if not shape or x.shape[x.ndim - len(shape) :] != shape or len(shape) > x.ndim:
        raise ValueError(
            f"normalized_shape: expected the trailing dimensions of x, {x.shape}, got {shape}"
        )
    eps = _check.number("eps", eps, 0.0)
    _check.optional("weight", weight, shape, "x", x)
    _check.optional("bias", bias, shape, "x", x)
    if out is not None:
        _check.output("out", out, x.shape, "x", x)
        _check.in_place_or_apart("out", out, x=x)
        _check.no_overlap("out", out, weight=weight, bias=bias)
    grid = _rows_of(x, shape)
    result, mean, rstd = active.layer_norm(
        x.reshape(grid),
        None if weight is None else weight.reshape(-1),
        None if bias is None else bias.reshape(-1),
        eps,
        None if out is None else out.reshape(grid),
    )
    result = result.reshape(x.shape) if out is None else out
    if not return_stats:
        return result
    leading = x.shape[: x.ndim - len(shape)]
    return result, mean.reshape(leading), rstd.reshape(leading)


def layer_norm_backward(
    dout: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    rstd: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    dresidual: np.ndarray | None = None,
    dx: np.ndarray | None = None,
    dweight: np.ndarray | None = None,
    dbias: np.ndarray | None = None,
    need_dx: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    r"""Gradients of ``layer_norm``.

    With xhat = (x - mean) * rstd and g = dout * weight, per row of n numbers:
    dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + dresidual;
    dweight += sum over rows of dout * xhat; dbias += sum over rows of dout.

    Parameters
    ----------
    dout, x : ndarray, float32, [..., *normalized_shape]
    mean, rstd : ndarray, float32, the leading shape of ``x``
        What ``layer_norm`` returned; their rank tells which dimensions were normalised.
    weight : ndarray, float32, normalized_shape, optional
    dresidual : ndarray, float32, the shape of ``x``, optional
        The cotangent that reaches ``x`` by the residual path beside the norm.
    dx : ndarray, optional
        Overwritten; may be ``dout`` or ``dresidual`` itself.
    dweight, dbias : ndarray, optional
        Accumulated into; without them new arrays come back.
    need_dx, need_dweight, need_dbias : bool
        What is not needed comes back as None; so does dweight without a weight.

    Returns
    -------
    dx, dweight, dbias : ndarray or None

    Raises
    ------
    TypeError, ValueError
        As ``layer_norm``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x = np.array([[1.0, 3.0]], np.float32)
    >>> _, mean, rstd = ops.layer_norm(x, 2, return_stats=True)
    >>> dx, _, dbias = ops.layer_norm_backward(np.array([[1.0, 2.0]], np.float32), x, mean, rstd)
    >>> abs(dx).max() < 1e-4, dbias.tolist()
    (np.True_, [1.0, 2.0])
    """
    _check.floats("x", x)
    _check.required("dout", dout, x.shape, "x", x)
    _check.floats("mean", mean)
    if mean.ndim >= x.ndim or mean.shape != x.shape[: mean.ndim]:
        raise ValueError(
            f"mean: expected the leading dimensions of x's shape {x.shape}, got {mean.shape}"
        )
    _check.same_dtype("x", x, mean=mean)
    _check.required("rstd", rstd, mean.shape, "x", x)
    shape = x.shape[mean.ndim :]
    _check.optional("weight", weight, shape, "x", x)
    _check.optional("dresidual", dresidual, x.shape, "x", x)
    if dx is not None:
        _check.output("dx", dx, x.shape, "x", x)
        _check.in_place_or_apart("dx", dx, dout=dout, dresidual=dresidual)
        _check.no_overlap("dx", dx, x=x, weight=weight, mean=mean, rstd=rstd)
    for name, d in (("dweight", dweight), ("dbias", dbias)):
        if d is not None:
            _check.output(name, d, shape, "x", x)
            _check.no_overlap(name, d, dout=dout, x=x, weight=weight, dx=dx)
    grid = _rows_of(x, shape)
    need_dweight = need_dweight and weight is not None
    result, new_dweight, new_dbias = active.layer_norm_backward(
        dout.reshape(grid),
        x.reshape(grid),
        mean.reshape(-1),
        rstd.reshape(-1),
        None if weight is None else weight.reshape(-1),
        None if dresidual is None else dresidual.reshape(grid),
        None if dx is None else dx.reshape(grid),
        None if dweight is None else dweight.reshape(-1),
        None if dbias is None else dbias.reshape(-1),
        need_dx,
        need_dweight,
        need_dbias,
    )
    if need_dx and dx is None:
        dx = result.reshape(x.shape)
    if need_dweight and dweight is None:
        dweight = new_dweight.reshape(shape)
    if need_dbias and dbias is None:
        dbias = new_dbias.reshape(shape)
    return (
        dx if need_dx else None,
        dweight if need_dweight else None,
        dbias if need_dbias else None,
    )
