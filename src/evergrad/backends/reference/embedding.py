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
