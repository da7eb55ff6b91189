"""Layer and root-mean-square normalisation, and their gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends import active
from . import _check


def _rows_of(x: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int]:
    """How many rows, and how many numbers in each, when the trailing ``shape`` is normalised."""
    return math.prod(x.shape[: x.ndim - len(shape)]), math.prod(shape)


def _shape_of(x: np.ndarray, normalized_shape: int | tuple[int, ...]) -> tuple[int, ...]:
    """``normalized_shape`` as a tuple: trailing dimensions of ``x``."""
    if (
        type(normalized_shape) is tuple
        and len(normalized_shape) == 1 <= x.ndim
        and (normalized_shape[0] == x.shape[-1])
    ):
        return x.shape[-1:]
    whole = (int, np.integer)
    shape = (normalized_shape,) if isinstance(normalized_shape, whole) else normalized_shape
    if not isinstance(shape, (tuple, list)) or not all(isinstance(n, whole) for n in shape):
        hint = ""
        if isinstance(shape, np.ndarray) and shape.dtype.kind == "f":
            hint = "; it comes before the weight"
        raise TypeError(
            "normalized_shape: expected an integer or a tuple of integers, "
            f"got {_check.shown(normalized_shape)}{hint}"
        )
    shape = tuple(int(n) for n in shape)
    if not shape or x.shape[x.ndim - len(shape) :] != shape or len(shape) > x.ndim:
        raise ValueError(
            f"normalized_shape: expected the trailing dimensions of x, {x.shape}, got {shape}"
        )
    return shape


def _forward_checks(
    x: np.ndarray,
    shape: tuple[int, ...],
    residual: np.ndarray | None,
    total: np.ndarray | None,
    out: np.ndarray | None,
    weight: np.ndarray | None,
    bias: np.ndarray | None = None,
) -> None:
    """All but x, which is normalised over its trailing ``shape``."""
    if (total is None or residual is not None) and active.plain(
        2, x, None, weight, shape, bias, shape, residual, x.shape, total, x.shape, out, x.shape
    ):
        return
    parameters = {"weight": weight, "bias": bias}
    for name, parameter in parameters.items():
        _check.optional(name, parameter, shape, "x", x)
    _check.optional("residual", residual, x.shape, "x", x)
    if total is not None:
        if residual is None:
            raise ValueError("total: expected None without a residual, got an array")
        _check.output("total", total, x.shape, "x", x)
        _check.in_place_or_apart("total", total, x=x, residual=residual)
        _check.no_overlap("total", total, **parameters)
    if out is not None:
        _check.output("out", out, x.shape, "x", x)
        _check.in_place_or_apart("out", out, x=x, residual=residual)
        _check.no_overlap("out", out, total=total, **parameters)


def _stats_check(name: str, stats: np.ndarray, x: np.ndarray) -> None:
    _check.floats(name, stats)
    if stats.ndim >= x.ndim or stats.shape != x.shape[: stats.ndim]:
        raise ValueError(
            f"{name}: expected the leading dimensions of x's shape {x.shape}, got {stats.shape}"
        )
    _check.same_dtype("x", x, **{name: stats})


def _backward_checks(
    x: np.ndarray,
    dout: np.ndarray | None,
    rstd: np.ndarray | None,
    weight: np.ndarray | None,
    dresidual: np.ndarray | None,
    dx: np.ndarray | None,
    dweight: np.ndarray | None,
    mean: np.ndarray | None = None,
    dbias: np.ndarray | None = None,
) -> None:
    """All but x and its first statistic: the mean, or rstd where there is none."""
    leading = (rstd if mean is None else mean).shape  # type: ignore[union-attr]
    shape = x.shape[len(leading) :]
    if dout is not None and rstd is not None and active.plain(
        3, x, None, dout, x.shape, mean, leading, rstd, leading, weight, shape,
        dresidual, x.shape, dx, x.shape, dweight, shape, dbias, shape,
    ):  # fmt: skip
        return
    _check.required("dout", dout, x.shape, "x", x)
    _check.required("rstd", rstd, leading, "x", x)
    _check.optional("weight", weight, shape, "x", x)
    _check.optional("dresidual", dresidual, x.shape, "x", x)
    if dx is not None:
        _check.output("dx", dx, x.shape, "x", x)
        _check.in_place_or_apart("dx", dx, dout=dout, dresidual=dresidual)
        _check.no_overlap("dx", dx, x=x, weight=weight, mean=mean, rstd=rstd)
    _check.output("dweight", dweight, shape, "x", x)
    _check.output("dbias", dbias, shape, "x", x)
    inputs = {
        "dout": dout, "x": x, "mean": mean, "rstd": rstd, "weight": weight,
        "dresidual": dresidual, "dx": dx,
    }  # fmt: skip
    _check.each_apart(inputs, dweight=dweight, dbias=dbias)


def layer_norm(
    x: np.ndarray,
    normalized_shape: int | tuple[int, ...],
    weight: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    eps: float = 1e-5,
    *,
    residual: np.ndarray | None = None,
    return_stats: bool = False,
    total: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray | Any:
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
    residual : ndarray, float32, the shape of ``x``, optional
        Added to ``x`` first: what is normalised is their total, the residual stream. It comes back
        too, and is what the backward takes for ``x``; its own cotangent goes in as ``dresidual``,
        and dx is the gradient of both.
    return_stats : bool
        Also return what the backward needs.
    total : ndarray, optional
        Written instead of a new array; may be ``x`` or ``residual`` itself.
    out : ndarray, optional
        Written instead of a new array; may be ``x`` or ``residual`` itself.

    Returns
    -------
    out : ndarray
        float32, the shape of ``x``.
    total : ndarray
        Only with a residual: x + residual.
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

    Fused with the residual path before it:

    >>> x, residual = np.array([[1.0, 1.0]], np.float32), np.array([[0.0, 2.0]], np.float32)
    >>> out, total = ops.layer_norm(x, 2, residual=residual)
    >>> out.round(3), total
    (array([[-1.,  1.]], dtype=float32), array([[1., 3.]], dtype=float32))
    """
    _check.floats("x", x)
    shape = _shape_of(x, normalized_shape)
    eps = _check.number("eps", eps, 0.0)
    _forward_checks(x, shape, residual, total, out, weight, bias)
    grid = _rows_of(x, shape)
    result, new_total, mean, rstd = active.layer_norm(
        x.reshape(grid),
        _check.shaped(residual, grid),
        _check.shaped(weight, (-1,)),
        _check.shaped(bias, (-1,)),
        eps,
        _check.shaped(total, grid),
        _check.shaped(out, grid),
    )
    leading = x.shape[: x.ndim - len(shape)]
    results: tuple[np.ndarray, ...] = (result.reshape(x.shape) if out is None else out,)
    if residual is not None:
        results += (new_total.reshape(x.shape) if total is None else total,)
    if return_stats:
        results += (mean.reshape(leading), rstd.reshape(leading))
    return results if len(results) > 1 else results[0]


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
) -> tuple[np.ndarray | Any, np.ndarray | Any, np.ndarray | Any]:
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
    _stats_check("mean", mean, x)
    shape = x.shape[mean.ndim :]
    _backward_checks(x, dout, rstd, weight, dresidual, dx, dweight, mean, dbias)
    grid = _rows_of(x, shape)
    need_dweight = need_dweight and weight is not None
    result, new_dweight, new_dbias = active.layer_norm_backward(
        dout.reshape(grid),
        x.reshape(grid),
        mean.reshape(-1),
        rstd.reshape(-1),
        _check.shaped(weight, (-1,)),
        _check.shaped(dresidual, grid),
        _check.shaped(dx, grid),
        _check.shaped(dweight, (-1,)),
        _check.shaped(dbias, (-1,)),
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


def rms_norm(
    x: np.ndarray,
    normalized_shape: int | tuple[int, ...],
    weight: np.ndarray | None = None,
    eps: float = 1e-6,
    *,
    residual: np.ndarray | None = None,
    return_stats: bool = False,
    total: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray | Any:
    r"""RMS norm (Zhang & Sennrich 2019): :math:`x \cdot \mathrm{rstd} \cdot w`,
    :math:`\mathrm{rstd} = 1 / \sqrt{\mathrm{mean}(x^2) + \epsilon}`.

    Parameters
    ----------
    x : ndarray, float32, [..., *normalized_shape]
    normalized_shape : int or tuple of int
        The trailing dimensions that are normalised together.
    weight : ndarray, float32, normalized_shape, optional
    eps : float
        Added to the mean square; at least 0.
    residual : ndarray, float32, the shape of ``x``, optional
        Added to ``x`` first, as in ``layer_norm``.
    return_stats : bool
        Also return what the backward needs.
    total : ndarray, optional
        Written instead of a new array; may be ``x`` or ``residual`` itself.
    out : ndarray, optional
        Written instead of a new array; may be ``x`` or ``residual`` itself.

    Returns
    -------
    out : ndarray
        float32, the shape of ``x``.
    total : ndarray
        Only with a residual: x + residual.
    rstd : ndarray
        Only with ``return_stats``: float32, the leading shape of ``x``.

    Raises
    ------
    TypeError, ValueError
        As ``layer_norm``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.rms_norm(np.array([[3.0, -3.0]], np.float32), 2).round(3)
    array([[ 1., -1.]], dtype=float32)
    """
    _check.floats("x", x)
    shape = _shape_of(x, normalized_shape)
    eps = _check.number("eps", eps, 0.0)
    _forward_checks(x, shape, residual, total, out, weight)
    grid = _rows_of(x, shape)
    result, new_total, rstd = active.rms_norm(
        x.reshape(grid),
        _check.shaped(residual, grid),
        _check.shaped(weight, (-1,)),
        eps,
        _check.shaped(total, grid),
        _check.shaped(out, grid),
    )
    results: tuple[np.ndarray, ...] = (result.reshape(x.shape) if out is None else out,)
    if residual is not None:
        results += (new_total.reshape(x.shape) if total is None else total,)
    if return_stats:
        results += (rstd.reshape(x.shape[: x.ndim - len(shape)]),)
    return results if len(results) > 1 else results[0]


def rms_norm_backward(
    dout: np.ndarray,
    x: np.ndarray,
    rstd: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    dresidual: np.ndarray | None = None,
    dx: np.ndarray | None = None,
    dweight: np.ndarray | None = None,
    need_dx: bool = True,
    need_dweight: bool = True,
) -> tuple[np.ndarray | Any, np.ndarray | Any]:
    r"""Gradients of ``rms_norm``.

    With xhat = x * rstd and g = dout * weight, per row of n numbers:
    dx = rstd * (g - xhat * mean(g * xhat)) + dresidual;
    dweight += sum over rows of dout * xhat.

    Parameters
    ----------
    dout, x : ndarray, float32, [..., *normalized_shape]
        The cotangent, and what was normalised: the total when there was a residual.
    rstd : ndarray, float32, the leading shape of ``x``
        What ``rms_norm`` returned; its rank tells which dimensions were normalised.
    weight : ndarray, float32, normalized_shape, optional
    dresidual : ndarray, float32, the shape of ``x``, optional
        The cotangent that reaches ``x`` by the residual path beside the norm.
    dx : ndarray, optional
        Overwritten; may be ``dout`` or ``dresidual`` itself.
    dweight : ndarray, optional
        Accumulated into; without it a new array comes back.
    need_dx, need_dweight : bool
        What is not needed comes back as None; so does dweight without a weight.

    Returns
    -------
    dx, dweight : ndarray or None

    Raises
    ------
    TypeError, ValueError
        As ``layer_norm``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x, weight = np.array([[3.0, 4.0]], np.float32), np.ones(2, np.float32)
    >>> out, rstd = ops.rms_norm(x, 2, weight, return_stats=True)
    >>> dx, dweight = ops.rms_norm_backward(x, x, rstd, weight)   # along x nothing changes
    >>> abs(dx).max() < 1e-6, bool(np.allclose(dweight, x * out))
    (np.True_, True)
    """
    _check.floats("x", x)
    _stats_check("rstd", rstd, x)
    shape = x.shape[rstd.ndim :]
    _backward_checks(x, dout, rstd, weight, dresidual, dx, dweight)
    grid = _rows_of(x, shape)
    need_dweight = need_dweight and weight is not None
    result, new_dweight = active.rms_norm_backward(
        dout.reshape(grid),
        x.reshape(grid),
        rstd.reshape(-1),
        _check.shaped(weight, (-1,)),
        _check.shaped(dresidual, grid),
        _check.shaped(dx, grid),
        _check.shaped(dweight, (-1,)),
        need_dx,
        need_dweight,
    )
    if need_dx and dx is None:
        dx = result.reshape(x.shape)
    if need_dweight and dweight is None:
        dweight = new_dweight.reshape(shape)
    return dx if need_dx else None, dweight if need_dweight else None
