"""Rows of a table by index, and the scatter of their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import active
from . import _check
from .quant import QuantizedWeight, memory_of


def embedding(
    input: np.ndarray,
    weight: np.ndarray | QuantizedWeight,
    *,
    out: np.ndarray | None = None,
    accumulate: bool = False,
) -> np.ndarray:
    """weight[input]: one row of the table for each index.

    Parameters
    ----------
    input : ndarray, int64 or int32, [...]
    weight : ndarray, float32, [num_embeddings, dim], or QuantizedWeight
        Of the latter the rows asked for are decoded.
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
    indices_read, table_read = input, weight
    if isinstance(weight, QuantizedWeight):
        input, weight = _decoded("input", input, weight)
        if out is None and not accumulate:
            return weight.reshape(*input.shape, weight.shape[1])
    _check.floats("weight", weight)
    _check.has_rank("weight", weight, 2, 2)
    indices = _check.indices("input", input, weight.shape[0])
    shape = (*indices.shape, weight.shape[1])
    if out is not None:
        _check.output("out", out, shape, "weight", weight)
        _check.no_overlap("out", out, input=indices_read, weight=memory_of(table_read))
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
        _check.rows(dout), indices.reshape(-1), num_embeddings, dweight
    )


def _decoded(
    name: str, indices: np.ndarray, weight: QuantizedWeight
) -> tuple[np.ndarray, np.ndarray]:
    """The rows asked for, as a table of their own, and indices that take each in turn."""
    indices = _check.indices(name, indices, weight.shape[0])
    rows = active.unpack(weight.data, weight.kind, weight.shape[1], indices.reshape(-1), None)
    return np.arange(indices.size).reshape(indices.shape), rows


def _table(
    names: tuple[str, str], indices: Any, weight: Any, first: np.ndarray | None
) -> np.ndarray:
    """The indices into a table, checked with it; the first table is what the others must fit."""
    indices_name, weight_name = names
    _check.floats(weight_name, weight)
    _check.has_rank(weight_name, weight, 2, 2)
    if first is not None:
        _check.same_dtype("weight", first, **{weight_name: weight})
        if weight.shape[1] != first.shape[1]:
            raise ValueError(
                f"{weight_name}: expected rows of {first.shape[1]} like weight, "
                f"got shape {weight.shape}"
            )
    return _check.indices(indices_name, indices, weight.shape[0])


_TABLES = ("input", "weight"), ("positions", "position_weight"), ("segments", "segment_weight")


def embedding_sum(
    input: np.ndarray,
    weight: np.ndarray | QuantizedWeight,
    positions: np.ndarray,
    position_weight: np.ndarray,
    segments: np.ndarray | None = None,
    segment_weight: np.ndarray | None = None,
    *,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Token, position and segment embedding added up, in one pass over the output.

    ``weight[input] + position_weight[positions] + segment_weight[segments]``: the first layer of
    GPT-2 (Radford et al. 2019, without segments) and of BERT (Devlin et al. 2019).

    Parameters
    ----------
    input : ndarray, int64 or int32, [...]
    weight : ndarray, float32, [num_embeddings, dim], or QuantizedWeight
    positions : ndarray, int64 or int32, the shape of ``input``
    position_weight : ndarray, float32, [num_positions, dim]
    segments : ndarray, int64 or int32, the shape of ``input``, optional
    segment_weight : ndarray, float32, [num_segments, dim], optional
        Both or none.
    out : ndarray, float32, [..., dim], optional
        Written instead of a new array.

    Returns
    -------
    ndarray
        float32, [..., dim].

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype, shape, strides, read-only ``out``.
    IndexError
        For an index that its table has no row for.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> words, places = np.array([[1.0], [2.0]], np.float32), np.array([[10.0], [20.0]], np.float32)
    >>> ops.embedding_sum(np.array([1, 1]), words, np.array([0, 1]), places).ravel()
    array([12., 22.], dtype=float32)
    """
    indices_read, table_read = input, weight
    if isinstance(weight, QuantizedWeight):
        input, weight = _decoded("input", input, weight)
    tokens = _table(_TABLES[0], input, weight, None)
    places = _table(_TABLES[1], positions, position_weight, weight)
    _check.has_shape("positions", places, tokens.shape)
    kinds = None
    if segments is not None or segment_weight is not None:
        kinds = _table(_TABLES[2], segments, segment_weight, weight)
        _check.has_shape("segments", kinds, tokens.shape)
    shape = (*tokens.shape, weight.shape[1])
    if out is not None:
        _check.output("out", out, shape, "weight", weight)
        _check.no_overlap(
            "out", out, input=indices_read, weight=memory_of(table_read), positions=positions,
            position_weight=position_weight, segments=segments, segment_weight=segment_weight,
        )  # fmt: skip
    result = active.embedding_sum(
        tokens.reshape(-1), weight, places.reshape(-1), position_weight,
        None if kinds is None else kinds.reshape(-1), segment_weight,
        None if out is None else out.reshape(tokens.size, shape[-1]),
    )  # fmt: skip
    return result.reshape(shape) if out is None else out


def embedding_sum_backward(
    dout: np.ndarray,
    input: np.ndarray,
    positions: np.ndarray,
    segments: np.ndarray | None = None,
    *,
    num_embeddings: int,
    num_positions: int,
    num_segments: int = 0,
    dweight: np.ndarray | None = None,
    dposition_weight: np.ndarray | None = None,
    dsegment_weight: np.ndarray | None = None,
    need_dweight: bool = True,
    need_dposition_weight: bool = True,
    need_dsegment_weight: bool = True,
) -> tuple[np.ndarray | Any, np.ndarray | Any, np.ndarray | Any]:
    """Gradients of ``embedding_sum``: dout goes to a row of each table, in the order of the tokens.

    Parameters
    ----------
    dout : ndarray, float32, [..., dim]
    input, positions, segments
        As in the forward call.
    num_embeddings, num_positions, num_segments : int
        Rows of the tables.
    dweight, dposition_weight, dsegment_weight : ndarray, optional
        Accumulated into; without them new arrays come back.
    need_dweight, need_dposition_weight, need_dsegment_weight : bool
        What is not needed is not computed and comes back as None.

    Returns
    -------
    dweight, dposition_weight, dsegment_weight : ndarray or None
        The last is None without segments.

    Raises
    ------
    TypeError, ValueError, IndexError
        As ``embedding_sum``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> dout, input, positions = np.ones((2, 1), np.float32), np.array([1, 1]), np.array([0, 1])
    >>> dweight, dplaces, _ = ops.embedding_sum_backward(
    ...     dout, input, positions, num_embeddings=2, num_positions=2
    ... )
    >>> dweight.ravel().tolist(), dplaces.ravel().tolist()
    ([0.0, 2.0], [1.0, 1.0])
    """
    _check.floats("dout", dout)
    _check.has_rank("dout", dout, 1)
    dim = dout.shape[-1]
    given = {"input": input, "positions": positions, "segments": segments}
    tables = (
        ("num_embeddings", num_embeddings, "dweight", dweight, need_dweight),
        ("num_positions", num_positions, "dposition_weight", dposition_weight,
         need_dposition_weight),
        ("num_segments", num_segments, "dsegment_weight", dsegment_weight, need_dsegment_weight),
    )  # fmt: skip
    rows: list[np.ndarray | None] = []
    for (name, indices), (count_name, count, *_) in zip(given.items(), tables, strict=True):
        _check.integer(count_name, count, 0, 2**31 - 1)
        if indices is None and name == "segments":
            rows.append(None)
            continue
        checked = _check.indices(name, indices, count)
        _check.has_shape(name, checked, dout.shape[:-1])
        rows.append(checked)
    for _, count, name, total, _ in tables:
        _check.output(name, total, (count, dim), "dout", dout)
    _check.each_apart({"dout": dout, **given}, **{name: total for _, _, name, total, _ in tables})
    flat = _check.rows(dout)
    dwords, dplaces, dkinds = (
        active.embedding_backward(flat, each.reshape(-1), count, total)
        if each is not None and needed
        else None
        for each, (_, count, _, total, needed) in zip(rows, tables, strict=True)
    )
    return dwords, dplaces, dkinds
