"""Rows of a table by index."""

from __future__ import annotations

import numpy as np

from ._common import Array, emit, ieee


@ieee
def embedding(indices: Array, weight: Array, accumulate: bool, out: Array | None) -> Array:
    """out[i] = weight[indices[i]] (+= with `accumulate`);  indices [n], out [n, dim]."""
    rows = weight[indices]
    if accumulate and out is not None:
        rows += out
    return emit(rows, out)


@ieee
def embedding_sum(
    input: Array,
    weight: Array,
    positions: Array,
    position_weight: Array,
    segments: Array | None,
    segment_weight: Array | None,
    out: Array | None,
) -> Array:
    """out[i] = weight[input[i]] + position_weight[positions[i]] + segment_weight[segments[i]]."""
    rows = weight[input] + position_weight[positions]
    if segments is not None and segment_weight is not None:
        rows += segment_weight[segments]
    return emit(rows, out)


# out_i = W_{t_i}  =>  dW_v = sum over i with t_i = v of dout_i, in the order of i.
@ieee
def embedding_backward(
    dout: Array, indices: Array, num_embeddings: int, dweight: Array | None
) -> Array:
    """dweight[indices[i]] += dout[i];  dout [n, dim], dweight [num_embeddings, dim]."""
    if dweight is None:
        dweight = np.zeros((num_embeddings, dout.shape[1]), dout.dtype)
    np.add.at(dweight, indices, dout)
    return dweight
