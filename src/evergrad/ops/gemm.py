"""Matrix products: ``matmul``, and ``linear`` with bias, activation and residual fused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends import active, native_isa
from . import _check
from .quant import QuantizedWeight, decoded, memory_of

ACTIVATIONS = (None, "relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu")


def _matrix(name: str, x: np.ndarray) -> None:
    """At least 2-D, and one of the last two axes contiguous: x and x.T both pass without a copy."""
    _check.floats(name, x, contiguous=False)
    _check.has_rank(name, x, 2)
    if (
        x.size
        and x.strides[-1] != x.itemsize
        and x.strides[-2] != x.itemsize
        and (x.shape[-1] > 1 or x.shape[-2] > 1)
    ):
        raise ValueError(
            f"{name}: expected one of the last two axes to be contiguous, got strides {x.strides}"
        )


def _product(a: np.ndarray, b: np.ndarray) -> tuple[int, ...]:
    """Check that a b exists; its shape."""
    _matrix("a", a)
    _matrix("b", b)
    _check.same_dtype("a", a, b=b)
    if b.ndim > 2 and b.shape[:-2] != a.shape[:-2]:
        raise ValueError(
            f"b: expected leading dimensions {a.shape[:-2]} like a, or none, got shape {b.shape}"
        )
    if b.shape[-2] != a.shape[-1]:
        raise ValueError(f"b: expected {a.shape[-1]} rows like a's columns, got shape {b.shape}")
    return (*a.shape[:-1], b.shape[-1])


def matmul(a: np.ndarray, b: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """Matrix product, batched over leading dimensions; transposed views cost no copy.

    Parameters
    ----------
    a : ndarray, float32, [..., m, k]
    b : ndarray, float32, [..., k, n]
        The leading dimensions of ``a``, or none.
    out : ndarray, optional
        [..., m, n], contiguous, apart from both inputs.

    Returns
    -------
    ndarray
        float32, [..., m, n].

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for shapes that do not fit, neither matrix axis contiguous, a
        read-only or overlapping ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.matmul(np.ones((2, 3), np.float32), np.ones((3, 1), np.float32))
    array([[3.],
           [3.]], dtype=float32)
    """
    if active.multiplies(a, b, out):
        return active.matmul(a, b, out)
    shape = _product(a, b)
    if out is not None:
        _check.output("out", out, shape, "a", a)
        _check.no_overlap("out", out, a=a, b=b)
    if 0 in shape:
        return np.empty(shape, a.dtype) if out is None else out
    return active.matmul(a, b, out)


def matmul_backward(
    dout: np.ndarray, a: np.ndarray, b: np.ndarray, *, need_da: bool = True, need_db: bool = True
) -> tuple[np.ndarray | Any, np.ndarray | Any]:
    """Gradients of ``matmul``: da = dout b^T, db = a^T dout (summed over the batch for a 2-D b).

    Parameters
    ----------
    dout : ndarray, float32, [..., m, n]
    a, b : ndarray
        What ``matmul`` was given.
    need_da, need_db : bool
        What is not needed is not computed and comes back as None.

    Returns
    -------
    da, db : ndarray
        float32, the shapes of ``a`` and ``b``.

    Raises
    ------
    TypeError, ValueError
        As ``matmul``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> a, b = np.ones((2, 3), np.float32), np.ones((3, 1), np.float32)
    >>> da, db = ops.matmul_backward(np.ones((2, 1), np.float32), a, b)
    >>> da.shape, db.ravel().tolist()
    ((2, 3), [2.0, 2.0, 2.0])
    """
    shape = _product(a, b)
    _check.floats("dout", dout)
    _check.has_shape("dout", dout, shape)
    _check.same_dtype("a", a, dout=dout)
    da = matmul(dout, np.swapaxes(b, -1, -2)) if need_da else None
    db = None
    if need_db and b.ndim == 2 and a.ndim > 2:
        # One product over all rows sums over the batch.
        db = matmul(_check.rows(np.ascontiguousarray(a)).T, _check.rows(dout))
    elif need_db:
        db = matmul(np.swapaxes(a, -1, -2), dout)
    return da, db


@dataclass(frozen=True)
class PackedWeight:
    """A weight laid out for ``linear`` once, by `pack_weight`; for inference.

    Attributes
    ----------
    shape : tuple of int
        (out_features, in_features) of the weight.
    layout : str
        The backend and ISA that can read it.
    """

    shape: tuple[int, int]
    layout: str
    _data: np.ndarray = field(repr=False)


def pack_weight(weight: np.ndarray) -> PackedWeight:
    """Lay a weight out as the product reads it, so that ``linear`` need not do it in every call.

    Parameters
    ----------
    weight : ndarray, float32, [out_features, in_features]
        Copied: later changes do not show.

    Returns
    -------
    PackedWeight
        For ``linear``, as long as the same backend and ISA are active.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype, more or fewer than two dimensions, strides.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> packed = ops.pack_weight(np.array([[1, 2], [-3, 1]], np.float32))
    >>> ops.linear(np.ones((1, 2), np.float32), packed)
    array([[ 3., -2.]], dtype=float32)
    """
    _check.floats("weight", weight)
    _check.has_rank("weight", weight, 2, 2)
    return PackedWeight(weight.shape, _layout(), active.pack_weight(weight))


def _layout() -> str:
    return f"native {native_isa()}" if active.name == "native" else active.name


def linear(
    x: np.ndarray,
    weight: np.ndarray | PackedWeight | QuantizedWeight,
    bias: np.ndarray | None = None,
    *,
    activation: str | None = None,
    residual: np.ndarray | None = None,
    return_pre: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray | Any:
    r"""Affine map, all around it fused: :math:`\mathrm{act}(x W^T + b) + \mathrm{residual}`.

    Parameters
    ----------
    x : ndarray, float32, [..., in_features]
    weight : ndarray, float32, [out_features, in_features], PackedWeight or QuantizedWeight
    bias : ndarray, float32, [out_features], optional
    activation : {None, "relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu"}
    residual : ndarray, float32, [..., out_features], optional
        Added after the activation.
    return_pre : bool
        Also return the input of the activation, which the backward of the gelus and silu needs.
    out : ndarray, optional
        Written instead of a new array. It may be ``residual`` itself (copied for the length of
        the call in the native backend).

    Returns
    -------
    out : ndarray
        float32, [..., out_features].
    pre : ndarray
        Only with ``return_pre``: :math:`x W^T + b`.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for shapes that do not fit, strides, an unknown activation, a
        read-only or overlapping ``out``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x, weight = np.ones((1, 2), np.float32), np.array([[1, 2], [-3, 1]], np.float32)
    >>> ops.linear(x, weight, activation="relu")
    array([[3., 0.]], dtype=float32)
    """
    _check.choice("activation", activation, ACTIVATIONS)
    data = weight
    if not active.affine(x, weight, bias, residual, out):
        data = _linear_checks(x, weight, bias, residual, out)
    shape = (*x.shape[:-1], weight.shape[0])
    rest = (bias, activation, _check.rows(residual), return_pre, _check.rows(out))
    if isinstance(weight, PackedWeight):
        result, pre = active.linear_packed(_check.rows(x), data, weight.shape[0], *rest)
    elif isinstance(weight, QuantizedWeight):
        result, pre = active.linear_quantized(_check.rows(x), data, weight.kind, *rest)
    else:
        result, pre = active.linear(_check.rows(x), data, *rest)
    result = _check.shaped(result, shape) if out is None else out
    return (result, _check.shaped(pre, shape)) if return_pre else result


def _linear_checks(
    x: np.ndarray,
    weight: np.ndarray | PackedWeight | QuantizedWeight,
    bias: np.ndarray | None,
    residual: np.ndarray | None,
    out: np.ndarray | None,
) -> np.ndarray:
    """The array behind the weight."""
    _check.floats("x", x)
    _check.has_rank("x", x, 1)
    if isinstance(weight, PackedWeight):
        if weight.layout != _layout():
            raise ValueError(
                f"weight: expected one packed for {_layout()}, got {weight.layout}; pack it again"
            )
        data = weight._data
        _check.same_dtype("x", x, weight=data)
    elif isinstance(weight, QuantizedWeight):
        data = weight.data
    else:
        data = weight
        _weight_checks(x, data)
    if weight.shape[1] != x.shape[-1]:
        raise _misfit(x, weight)
    shape = (*x.shape[:-1], weight.shape[0])
    read = None if out is None else data  # what only an output has to be apart from
    if not active.plain(
        1, x, None, bias, shape[-1:], residual, shape, read, None, out, shape
    ):  # fmt: skip
        _check.optional("bias", bias, shape[-1:], "x", x)
        _check.optional("residual", residual, shape, "x", x)
        if out is not None:
            _check.output("out", out, shape, "x", x)
            _check.no_overlap("out", out, x=x, weight=data, bias=bias)
            _check.in_place_or_apart("out", out, residual=residual)
    return data


def _weight_checks(x: np.ndarray, weight: np.ndarray) -> None:
    _check.floats("weight", weight)
    _check.has_rank("weight", weight, 2, 2)
    _check.same_dtype("x", x, weight=weight)


def _misfit(x: np.ndarray, weight: np.ndarray | PackedWeight | QuantizedWeight) -> ValueError:
    return ValueError(
        f"weight: expected [out_features, {x.shape[-1]}] to fit x, got shape {weight.shape}"
    )


def gradient_checks(
    x: np.ndarray,
    weight: np.ndarray | QuantizedWeight,
    dx: np.ndarray | None,
    dweight: np.ndarray | None,
    dbias: np.ndarray | None,
    **others: np.ndarray | None,
) -> None:
    """The gradients of an affine map fit it, and lie apart from all that is read beside them."""
    _check.output("dx", dx, x.shape, "x", x)
    _check.output("dweight", dweight, weight.shape, "x", x)
    _check.output("dbias", dbias, weight.shape[:1], "x", x)
    inputs = {"x": x, "weight": memory_of(weight), **others}
    _check.each_apart(inputs, dx=dx, dweight=dweight, dbias=dbias)


def linear_backward(
    dout: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray | QuantizedWeight,
    *,
    activation: str | None = None,
    saved: np.ndarray | None = None,
    dx: np.ndarray | None = None,
    dweight: np.ndarray | None = None,
    dbias: np.ndarray | None = None,
    need_dx: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
) -> tuple[np.ndarray | Any, np.ndarray | Any, np.ndarray | Any]:
    r"""Gradients of ``linear``. With dpre = dout * act'(...):
    dx = dpre W, dweight += dpre^T x, dbias += sum of the rows of dpre. (The gradient of
    ``residual`` is ``dout``.)

    Parameters
    ----------
    dout : ndarray, float32, [..., out_features]
    x, weight : ndarray
        What ``linear`` was given. A QuantizedWeight has no gradient: need_dweight must be False.
    activation : {None, "relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu"}
    saved : ndarray, float32, the shape of ``dout``
        What the activation's own backward takes: the pre-activation for the gelus and "silu",
        the output (without residual) for "relu", "sigmoid" and "tanh".
    dx : ndarray, optional
        Overwritten.
    dweight, dbias : ndarray, optional
        Accumulated into; without them new arrays come back.
    need_dx, need_dweight, need_dbias : bool
        What is not needed is not computed and comes back as None.

    Returns
    -------
    dx, dweight, dbias : ndarray or None

    Raises
    ------
    TypeError, ValueError
        As ``linear``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x, weight = np.ones((1, 2), np.float32), np.array([[1, 2]], np.float32)
    >>> dx, dweight, dbias = ops.linear_backward(np.ones((1, 1), np.float32), x, weight)
    >>> dx.tolist(), dweight.tolist(), dbias.tolist()
    ([[1.0, 2.0]], [[1.0, 1.0]], [1.0])
    """
    _check.choice("activation", activation, ACTIVATIONS)
    matrix: Any = weight
    # dout has the shape of the layer's output, as a residual has.
    if dout is None or not active.affine(x, weight, None, dout, None):
        _check.floats("x", x)
        _check.has_rank("x", x, 1)
        matrix = decoded(weight, need_dweight)
        _weight_checks(x, matrix)
        if matrix.shape[1] != x.shape[-1]:
            raise _misfit(x, matrix)
    shape = (*x.shape[:-1], matrix.shape[0])
    as_given = matrix is weight and dout is not None and (saved is None) == (activation is None)
    if not as_given or not active.plain(
        3, x, None, matrix, None, dout, shape, saved, shape,
        dx, x.shape, dweight, matrix.shape, dbias, shape[-1:],
    ):  # fmt: skip
        _check.required("dout", dout, shape, "x", x)
        if activation is not None:
            _check.required("saved", saved, shape, "x", x)
        gradient_checks(x, weight, dx, dweight, dbias, dout=dout, saved=saved)
    result, dweight, dbias = active.linear_backward(
        _check.rows(dout), _check.rows(x), matrix, activation,
        None if activation is None else _check.rows(saved),
        _check.rows(dx), dweight, dbias, need_dx, need_dweight, need_dbias,
    )  # fmt: skip
    if dx is None:
        dx = _check.shaped(result, x.shape)
    return (dx if need_dx else None), dweight, dbias
