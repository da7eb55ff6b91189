"""Scaled dot-product attention: whole score matrices, one sequence at a time.

Shapes: query, out [batch, tokens_q, heads, head_dim], key, value [batch, tokens_k, kv_heads,
head_dim], lse [batch, heads, tokens_q]; or packed: query [total_q, heads, head_dim], lse
[heads, total_q], sequence s in rows cu_seqlens[s] to cu_seqlens[s + 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ._common import Array, exponentials, ieee


def _sequences(
    query: Array, cu_seqlens_q: Array | None, cu_seqlens_k: Array | None
) -> Iterator[tuple[Any, Any, Any]]:
    """For each sequence: where it lies in query-like arrays, in key-like arrays, and in lse."""
    if cu_seqlens_q is None or cu_seqlens_k is None:
        for b in range(query.shape[0]):
            yield b, b, b
        return
    for s in range(len(cu_seqlens_q) - 1):
        rows_q = slice(cu_seqlens_q[s], cu_seqlens_q[s + 1])
        rows_k = slice(cu_seqlens_k[s], cu_seqlens_k[s + 1])
        yield rows_q, rows_k, (slice(None), rows_q)


def _split(x: Array, kv_heads: int) -> Array:
    """[tokens, heads, head_dim] -> [kv_heads, group, tokens, head_dim].

    Query head h reads key/value head h // group; keys and values themselves have group 1, and
    broadcasting does the rest: nothing is repeated in memory.
    """
    tokens, heads, head_dim = x.shape
    return x.reshape(tokens, kv_heads, heads // kv_heads, head_dim).transpose(1, 2, 0, 3)


def _merge(x: Array) -> Array:
    """[kv_heads, group, tokens, head_dim] -> [tokens, heads, head_dim], the inverse of _split."""
    kv_heads, group, tokens, head_dim = x.shape
    return x.transpose(2, 0, 1, 3).reshape(tokens, kv_heads * group, head_dim)


def _scores(q: Array, k: Array, is_causal: bool, scale: float) -> Array:
    """scale * q.k [kv_heads, group, tokens_q, tokens_k], -inf where a query may not look.

    Causal is aligned bottom-right: query i sees keys j <= i + (tokens_k - tokens_q).
    """
    scores = scale * (q @ k.swapaxes(-1, -2))
    if is_causal:
        tokens_q, tokens_k = scores.shape[-2:]
        visible = np.tri(tokens_q, tokens_k, tokens_k - tokens_q, dtype=bool)
        scores = np.where(visible, scores, -np.inf).astype(q.dtype, copy=False)
    return scores


@ieee
def attention(
    query: Array,
    key: Array,
    value: Array,
    is_causal: bool,
    scale: float,
    cu_seqlens_q: Array | None,
    cu_seqlens_k: Array | None,
    out: Array | None,
) -> tuple[Array, Array]:
    """out = softmax(scale * q k^T) v, lse = log sum exp(scale * q k^T) -> (out, lse).

    A query without keys gives out 0 and lse -inf.
    """
    kv_heads = key.shape[-2]
    if out is None:
        out = np.empty(query.shape, query.dtype)
    # [batch, tokens, heads] -> [batch, heads, tokens];  [total, heads] -> [heads, total]
    lse = np.empty((*query.shape[:-3], query.shape[-2], query.shape[-3]), query.dtype)
    for at_q, at_k, at_lse in _sequences(query, cu_seqlens_q, cu_seqlens_k):
        q, k, v = (_split(x, kv_heads) for x in (query[at_q], key[at_k], value[at_k]))
        exps, total, peak = exponentials(_scores(q, k, is_causal, scale))
        lse[at_lse] = (peak + np.log(total)).reshape(query.shape[-2], -1)
        total[total == 0] = 1
        out[at_q] = _merge(exps / total @ v)
    return out, lse


# With S = scale Q K^T, P = softmax(S), O = P V (rows are queries):
#   dV = P^T dO,   dP = dO V^T,
#   dS_ij = P_ij (dP_ij - sum_k dP_ik P_ik) = P_ij (dP_ij - delta_i),
#   delta_i = sum_k P_ik (dO_i . V_k) = dO_i . O_i, so the row sum needs no second pass over P,
#   dQ = scale dS K,   dK = scale dS^T Q.
# P is recomputed as exp(S - lse). A key head collects from all query heads of its group.
@ieee
def attention_backward(
    dout: Array,
    query: Array,
    key: Array,
    value: Array,
    out: Array,
    lse: Array,
    is_causal: bool,
    scale: float,
    cu_seqlens_q: Array | None,
    cu_seqlens_k: Array | None,
    dquery: Array | None,
    dkey: Array | None,
    dvalue: Array | None,
) -> tuple[Array, Array, Array]:
    """Gradients for query, key, value; shapes as theirs, buffers may be strided."""
    kv_heads = key.shape[-2]
    if dquery is None:
        dquery = np.empty(query.shape, query.dtype)
    if dkey is None:
        dkey = np.empty(key.shape, key.dtype)
    if dvalue is None:
        dvalue = np.empty(value.shape, value.dtype)
    for at_q, at_k, at_lse in _sequences(query, cu_seqlens_q, cu_seqlens_k):
        q, k, v = (_split(x, kv_heads) for x in (query[at_q], key[at_k], value[at_k]))
        o, do = (_split(x, kv_heads) for x in (out[at_q], dout[at_q]))
        log_total = lse[at_lse].reshape(*q.shape[:-1], 1)
        log_total = np.where(log_total == -np.inf, 0, log_total)  # rows without keys: P = 0
        p = np.exp(_scores(q, k, is_causal, scale) - log_total)
        delta = (do * o).sum(axis=-1, keepdims=True)
        ds = p * (do @ v.swapaxes(-1, -2) - delta)
        dquery[at_q] = _merge(scale * (ds @ k))
        dkey[at_k] = _merge((scale * (ds.swapaxes(-1, -2) @ q)).sum(axis=1, keepdims=True))
        dvalue[at_k] = _merge((p.swapaxes(-1, -2) @ do).sum(axis=1, keepdims=True))
    return dquery, dkey, dvalue
