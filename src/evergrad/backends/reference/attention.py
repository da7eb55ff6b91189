"""Scaled dot-product attention: whole score matrices, one sequence at a time.

Shapes: query, out [batch, tokens_q, heads, head_dim], key, value [batch, tokens_k, kv_heads,
head_dim], lse [batch, heads, tokens_q]; or packed: query [total_q, heads, head_dim], lse
[heads, total_q], sequence s in rows cu_seqlens[s] to cu_seqlens[s + 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._common import Array, exponentials, ieee
from .dropout import kept


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


@dataclass(frozen=True)
class _Scores:
    """Scores [kv_heads, group, tokens_q, tokens_k] of one sequence, and what backward needs."""

    values: Array  # -inf where hidden
    derivative: Array | float  # of the softcap
    kept: Array | float  # the dropout's 0 and 1 / (1 - p)


def _scores(
    q: Array,
    k: Array,
    sequence: int,
    first_q: int,
    first_k: int,
    counts: tuple[int, int, int],
    attn_mask: Array | None,
    bias: Array | None,
    dropout_p: float,
    scale: float,
    window_size: tuple[int, int],
    softcap: float,
    alibi_slopes: Array | None,
    packed: bool,
    seed: int,
    offset: int,
) -> _Scores:
    """softcap tanh(scale q k^T / softcap) - slope |p - j| + bias + mask.

    Query i is at p = i + tokens_k - tokens_q. Hidden (-inf) is what lies outside of the window
    p - left <= j <= p + right, where the mask is False, and where what is added is -inf. Element
    (head, query, key) of the dropout has the counter of its place in [batch, heads, tokens_q,
    tokens_k], or in [heads, total_q, total_k]; `counts` are the last three of these.
    """
    kv_heads, group, tokens_q, _ = q.shape
    tokens_k = k.shape[-2]
    heads = (kv_heads, group)
    values = scale * (q @ k.swapaxes(-1, -2))
    derivative: Array | float = 1.0
    if softcap:
        squashed = np.tanh(values / softcap)
        values, derivative = softcap * squashed, 1 - squashed**2
    place = np.arange(tokens_q)[:, None] + (tokens_k - tokens_q)
    j = np.arange(tokens_k)
    if alibi_slopes is not None:
        slopes = alibi_slopes if alibi_slopes.ndim == 1 else alibi_slopes[sequence]
        values = values - slopes.reshape(*heads, 1, 1) * abs(place - j).astype(q.dtype)
    left, right = window_size
    hidden = np.zeros((tokens_q, tokens_k), bool)
    if left >= 0:
        hidden |= j < place - left
    if right >= 0:
        hidden |= j > place + right
    for added in (bias, attn_mask):
        if added is None:
            continue
        batch = 0 if added.shape[0] == 1 else sequence
        part = added[batch, :, :tokens_q, :tokens_k]
        part = np.broadcast_to(part, (kv_heads * group, tokens_q, tokens_k))
        part = part.reshape(*heads, tokens_q, tokens_k)
        if part.dtype == bool:
            hidden = hidden | ~part
        else:
            hidden = hidden | (part == -np.inf)
            values = values + part
    values = np.where(hidden, -np.inf, values).astype(q.dtype, copy=False)

    keep: Array | float = 1.0
    if dropout_p:
        all_heads, total_q, total_k = counts
        h = np.arange(all_heads).reshape(*heads, 1, 1) + (0 if packed else sequence * all_heads)
        counter = (h * total_q + np.arange(tokens_q)[:, None] + first_q) * total_k + j + first_k
        counter = counter.astype(np.uint64) + np.uint64(offset)
        keep = kept(counter, dropout_p, seed) * q.dtype.type(1 / (1 - dropout_p))
    return _Scores(values, derivative, keep)


def _drop(x: Array, kept: Array | float) -> Array:
    """What is dropped is 0, like in ``dropout``, even where x is NaN."""
    return np.where(kept == 0, 0, kept * x).astype(x.dtype, copy=False)


def _first(rows: Any) -> int:
    """Where a sequence begins within its batch entry."""
    return rows.start if isinstance(rows, slice) else 0


@ieee
def attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None,
    bias: Array | None,
    dropout_p: float,
    scale: float,
    window_size: tuple[int, int],
    softcap: float,
    alibi_slopes: Array | None,
    cu_seqlens_q: Array | None,
    cu_seqlens_k: Array | None,
    seed: int,
    offset: int,
    out: Array | None,
) -> tuple[Array, Array]:
    """out = dropout(softmax(scores)) v, lse = log sum exp(scores) -> (out, lse).

    A query without keys gives out 0 and lse -inf.
    """
    kv_heads = key.shape[-2]
    counts = (query.shape[-2], query.shape[-3], key.shape[-3])
    if out is None:
        out = np.empty(query.shape, query.dtype)
    # [batch, tokens, heads] -> [batch, heads, tokens];  [total, heads] -> [heads, total]
    lse = np.empty((*query.shape[:-3], query.shape[-2], query.shape[-3]), query.dtype)
    for s, (at_q, at_k, at_lse) in enumerate(_sequences(query, cu_seqlens_q, cu_seqlens_k)):
        q, k, v = (_split(x, kv_heads) for x in (query[at_q], key[at_k], value[at_k]))
        scores = _scores(
            q, k, s, _first(at_q), _first(at_k), counts, attn_mask, bias, dropout_p, scale,
            window_size,
            softcap, alibi_slopes, cu_seqlens_q is not None, seed, offset,
        )  # fmt: skip
        exps, total, peak = exponentials(scores.values)
        lse[at_lse] = (peak + np.log(total)).reshape(query.shape[-2], -1)
        total[total == 0] = 1
        out[at_q] = _merge(_drop(exps / total, scores.kept) @ v)
    return out, lse


# With S the scores, P = softmax(S), K the dropout's factors, O = (K P) V (rows are queries):
#   dV = (K P)^T dO,   dP = K (dO V^T),
#   dS_ij = P_ij (dP_ij - sum_k dP_ik P_ik) = P_ij (dP_ij - delta_i),
#   delta_i = sum_k P_ik K_ik (dO_i . V_k) = dO_i . O_i, so the row sum needs no second pass over P,
#   dbias = dS, summed over what it broadcasts;  before the softcap, dS' = dS (1 - tanh^2),
#   dQ = scale dS' K,   dK = scale dS'^T Q.
# P is recomputed as exp(S - lse). A key head collects from all query heads of its group.
@ieee
def attention_backward(
    dout: Array,
    query: Array,
    key: Array,
    value: Array,
    out: Array,
    lse: Array,
    attn_mask: Array | None,
    bias: Array | None,
    dropout_p: float,
    scale: float,
    window_size: tuple[int, int],
    softcap: float,
    alibi_slopes: Array | None,
    cu_seqlens_q: Array | None,
    cu_seqlens_k: Array | None,
    seed: int,
    offset: int,
    dquery: Array | None,
    dkey: Array | None,
    dvalue: Array | None,
    dbias: Array | None,
) -> tuple[Array, Array, Array, Array | None]:
    """Gradients for query, key, value, bias; shapes as theirs, buffers may be strided."""
    kv_heads = key.shape[-2]
    counts = (query.shape[-2], query.shape[-3], key.shape[-3])
    if dquery is None:
        dquery = np.empty(query.shape, query.dtype)
    if dkey is None:
        dkey = np.empty(key.shape, key.dtype)
    if dvalue is None:
        dvalue = np.empty(value.shape, value.dtype)
    if bias is not None and dbias is None:
        dbias = np.zeros(bias.shape, bias.dtype)
    for s, (at_q, at_k, at_lse) in enumerate(_sequences(query, cu_seqlens_q, cu_seqlens_k)):
        q, k, v = (_split(x, kv_heads) for x in (query[at_q], key[at_k], value[at_k]))
        o, do = (_split(x, kv_heads) for x in (out[at_q], dout[at_q]))
        log_total = lse[at_lse].reshape(*q.shape[:-1], 1)
        log_total = np.where(log_total == -np.inf, 0, log_total)  # rows without keys: P = 0
        scores = _scores(
            q, k, s, _first(at_q), _first(at_k), counts, attn_mask, bias, dropout_p, scale,
            window_size,
            softcap, alibi_slopes, cu_seqlens_q is not None, seed, offset,
        )  # fmt: skip
        p = np.exp(scores.values - log_total)
        delta = (do * o).sum(axis=-1, keepdims=True)
        ds = p * (_drop(do @ v.swapaxes(-1, -2), scores.kept) - delta)
        if dbias is not None:
            _add_broadcast(
                ds.reshape(query.shape[-2], *ds.shape[2:]), dbias[s if len(dbias) > 1 else 0]
            )
        ds = ds * scores.derivative
        dquery[at_q] = _merge(scale * (ds @ k))
        dkey[at_k] = _merge((scale * (ds.swapaxes(-1, -2) @ q)).sum(axis=1, keepdims=True))
        dropped_p = _drop(p, scores.kept)
        dvalue[at_k] = _merge((dropped_p.swapaxes(-1, -2) @ do).sum(axis=1, keepdims=True))
    return dquery, dkey, dvalue, dbias


def _add_broadcast(ds: Array, total: Array) -> None:
    """Add ds [heads, tokens_q, tokens_k] to the corner of `total` that it was broadcast from."""
    corner = total[:, : ds.shape[1], : ds.shape[2]]
    summed = tuple(axis for axis in (0, 1) if total.shape[axis] == 1)
    corner += ds.sum(axis=summed, keepdims=True)
