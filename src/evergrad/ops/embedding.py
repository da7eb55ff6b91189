"""Rows of a table by index, and the scatter of their gradients."""

from __future__ import annotations

import numpy as np

from ..backends import active
from . import _check


def embedding(
    input: np.ndarray,
    weight: np.ndarray,
    *,
    out: np.ndarray | None = None,
    accumulate: bool = False,
) -> np.ndarray:
    """weight[input]: one row of the table for each index.

    Parameters
    ----------
    input : ndarray, int64 or int32, [...]
    weight : ndarray, float32, [num_embeddings, dim]
    out : ndarray, float32, [..., dim], optional
        Overwritten, or with ``accumulate`` added to (token plus position embedding in one pass).
    accumulate : bool
        Needs ``out``.

    Returns
    -------
    ndarray
        float32, [..., dim].

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype, shape, strides, read-only ``out``.
    IndexError
        For an index outside [0, num_embeddings).

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.embedding(np.array([1]), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    array([[3., 4.]], dtype=float32)
    """
    _check.floats("weight", weight)
    _check.has_rank("weight", weight, 2, 2)
    indices = _check.indices("input", input, weight.shape[0])
    shape = (*indices.shape, weight.shape[1])
    if out is not None:
        _check.output("out", out, shape, "weight", weight)
        _check.no_overlap("out", out, input=input, weight=weight)
    elif accumulate:
        raise ValueError("out: expected an array to accumulate into, got None")
    result = active.embedding(
        indices.reshape(-1),
        weight,
        accumulate,
        None if out is None else out.reshape(indices.size, weight.shape[1]),
    )
    return result.reshape(shape) if out is None else out


def embedding_backward(
    dout: np.ndarray,
    input: np.ndarray,
    num_embeddings: int,
    *,
    dweight: np.ndarray | None = None,
) -> np.ndarray:
    """dweight[input[i]] += dout[i], in the order of i.

    Parameters
    ----------
    dout : ndarray, float32, [..., dim]
    input : ndarray, int64 or int32, [...]
    num_embeddings : int
    dweight : ndarray, float32, [num_embeddings, dim], optional
        Accumulated into; without it a new array comes back.

    Returns
    -------
    ndarray
        float32, [num_embeddings, dim].

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype, shape, strides, read-only ``dweight``.
    IndexError
        For an index outside [0, num_embeddings).

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.embedding_backward(np.ones((2, 1), np.float32), np.array([1, 1]), 3).ravel()
    array([0., 2., 0.], dtype=float32)
    """
    num_embeddings = _check.integer("num_embeddings", num_embeddings, 0, 2**31 - 1)
    _check.floats("dout", dout)
    _check.has_rank("dout", dout, 1)
    indices = _check.indices("input", input, num_embeddings)
    dim = dout.shape[-1]
    _check.has_shape("dout", dout, (*indices.shape, dim))
    if dweight is not None:
        _check.output("dweight", dweight, (num_embeddings, dim), "dout", dout)
        _check.no_overlap("dweight", dweight, dout=dout, input=input)
    return active.embedding_backward(
        dout.reshape(indices.size, dim), indices.reshape(-1), num_embeddings, dweight
    )
