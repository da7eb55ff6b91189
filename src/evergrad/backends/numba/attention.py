"""Scaled dot-product attention in tiles (Dao et al. 2022), GQA and packed sequences included.

Inside, everything is 4-D: query, out [batch, tokens, heads, head_dim], lse [batch, heads, tokens];
a packed batch has batch 1. `spans` [sequences, 5] says where each sequence lies: its batch index,
then begin and end of its queries and of its keys.

A tile is [height, LANES], flat, with LANES tokens side by side: queries in the forward pass and for
dquery, keys for dkey and dvalue. So the maximum, the sum and the products of LANES rows of scores
advance together in vector registers, and no sum runs across a register.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ..reference import attention as reference_attention
from ._kernel import inline, kernel
from ._math import ONE, ZERO, exp

Array = NDArray[Any]

LANES = 64
_FEW = 4
_HEIGHT = 64
_MINUS_INF = np.float32(-np.inf)


@inline
def _multiply_add(a: Array, b: Array, c: Array) -> None:
    """c += a @ b;  a [m, k] with any strides, b [k, LANES] and c [m, LANES] flat.

    Blocks of 4 x 4 factors: each vector of b serves four rows, each of c takes four products. That
    LANES is a constant tells LLVM that these rows do not overlap.
    """
    m, k = a.shape
    m4, k4 = m - m % 4, k - k % 4
    for i in range(0, m4, 4):
        rows = c[i * LANES : (i + 4) * LANES]
        for p in range(0, k4, 4):
            cols = b[p * LANES : (p + 4) * LANES]
            a00, a01, a02, a03 = a[i, p], a[i, p + 1], a[i, p + 2], a[i, p + 3]
            a10, a11, a12, a13 = a[i + 1, p], a[i + 1, p + 1], a[i + 1, p + 2], a[i + 1, p + 3]
            a20, a21, a22, a23 = a[i + 2, p], a[i + 2, p + 1], a[i + 2, p + 2], a[i + 2, p + 3]
            a30, a31, a32, a33 = a[i + 3, p], a[i + 3, p + 1], a[i + 3, p + 2], a[i + 3, p + 3]
            for j in range(LANES):
                b0, b1 = cols[j], cols[LANES + j]
                b2, b3 = cols[2 * LANES + j], cols[3 * LANES + j]
                rows[j] += a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
                rows[LANES + j] += a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
                rows[2 * LANES + j] += a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
                rows[3 * LANES + j] += a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3
        for p in range(k4, k):
            _rank_one(a, b, c, i, i + 4, p)
    for p in range(k):
        _rank_one(a, b, c, m4, m, p)


@inline
def _rank_one(a: Array, b: Array, c: Array, begin: int, end: int, p: int) -> None:
    """Rows begin to end of c += column p of a times row p of b."""
    col = b[p * LANES : (p + 1) * LANES]
    for i in range(begin, end):
        row = c[i * LANES : (i + 1) * LANES]
        for j in range(LANES):
            row[j] += a[i, p] * col[j]


@inline
def _multiply(a: Array, b: Array, c: Array) -> None:
    """c = a @ b, with `_multiply_add`'s shapes; c may be longer."""
    for i in range(a.shape[0] * LANES):
        c[i] = ZERO
    _multiply_add(a, b, c)


@inline
def _pack(x: Array, factor: float) -> Array:
    """[tokens, head_dim] -> the tile [head_dim, LANES] of factor * x^T, unused lanes zero."""
    tile = np.zeros(x.shape[1] * LANES, np.float32)
    for i in range(x.shape[0]):
        for d in range(x.shape[1]):
            tile[d * LANES + i] = x[i, d] * factor
    return tile


@inline
def _unpack(tile: Array, factor: Array, x: Array) -> None:
    """The inverse of `_pack`, with a factor for each lane."""
    for i in range(x.shape[0]):
        for d in range(x.shape[1]):
            x[i, d] = tile[d * LANES + i] * factor[i]


@inline
def _hide(scores: Array, height: int, first: int, step: int) -> None:
    """Put -inf where a causal query may not look.

    With queries in lanes (step 1) row i hides lanes below first + i; with keys in lanes (step -1)
    it hides lanes from first + i on.
    """
    for i in range(height):
        edge = min(max(first + i, 0), LANES)
        begin, end = (0, edge) if step > 0 else (edge, LANES)
        for j in range(begin, end):
            scores[i * LANES + j] = _MINUS_INF


@kernel
def _forward_kernel(
    query: Array,
    key: Array,
    value: Array,
    is_causal: bool,
    scale: float,
    spans: Array,
    blocks: Array,
    out: Array,
    lse: Array,
) -> None:
    """Online softmax: a running maximum for each query; a new one rescales the sums so far."""
    heads, head_dim = query.shape[2:]
    group = heads // key.shape[2]
    for item in prange(heads * blocks.shape[0]):
        h = item // blocks.shape[0]
        sequence, begin = blocks[item % blocks.shape[0]]
        b, q0, q1, k0, k1 = spans[sequence]
        q0 += begin
        n = min(q1 - q0, LANES)
        # Lane i sees the keys j <= i + last, last >= keys when not causal.
        last = (k1 - k0) - (q1 - q0) if is_causal else k1 - k0
        keys = max(0, min(k1 - k0, n + last))
        q = _pack(query[b, q0 : q0 + n, h], scale)
        k, v = key[b, k0 : k0 + keys, h // group], value[b, k0 : k0 + keys, h // group]
        scores = np.empty(_HEIGHT * LANES, np.float32)
        sums = np.zeros(head_dim * LANES, np.float32)
        total = np.zeros(LANES, np.float32)
        peak = np.full(LANES, _MINUS_INF)
        shift = np.zeros(LANES, np.float32)
        shrink = np.empty(LANES, np.float32)
        for t in range(0, keys, _HEIGHT):
            height = min(_HEIGHT, keys - t)
            _multiply(k[t : t + height], q, scores)
            if t + height - 1 > last:
                _hide(scores, height, t - last, 1)
            for j in range(LANES):
                shrink[j] = peak[j]
            for i in range(height):
                row = scores[i * LANES : (i + 1) * LANES]
                for j in range(LANES):
                    peak[j] = row[j] if row[j] > peak[j] else peak[j]
            for j in range(LANES):
                shift[j] = ZERO if peak[j] == _MINUS_INF else peak[j]
                shrink[j] = exp(shrink[j] - shift[j])
                total[j] *= shrink[j]
            for i in range(height):
                row = scores[i * LANES : (i + 1) * LANES]
                for j in range(LANES):
                    row[j] = exp(row[j] - shift[j])
                    total[j] += row[j]
            for d in range(head_dim):
                row = sums[d * LANES : (d + 1) * LANES]
                for j in range(LANES):
                    row[j] *= shrink[j]
            _multiply_add(v[t : t + height].T, scores, sums)
        for i in range(n):
            lse[b, h, q0 + i] = shift[i] + np.log(total[i])
            total[i] = ZERO if total[i] == ZERO else ONE / total[i]
        _unpack(sums, total, out[b, q0 : q0 + n, h])


# The formulas are those of the reference. dquery goes through the keys of a block of queries, dkey
# and dvalue through the queries of a block of keys; each recomputes the probabilities it needs,
# exp(score - lse), which costs two products more than one joint pass but has no two threads adding
# to one place.
@kernel
def _dquery_kernel(
    query: Array,
    key: Array,
    value: Array,
    dout: Array,
    out: Array,
    lse: Array,
    is_causal: bool,
    scale: float,
    spans: Array,
    blocks: Array,
    delta: Array,
    dquery: Array,
) -> None:
    """dquery = scale * sum_j P_ij (dout_i . v_j - delta_i) k_j;  delta_i = dout_i . out_i."""
    heads, head_dim = query.shape[2:]
    group = heads // key.shape[2]
    for item in prange(heads * blocks.shape[0]):
        h = item // blocks.shape[0]
        sequence, begin = blocks[item % blocks.shape[0]]
        b, q0, q1, k0, k1 = spans[sequence]
        q0 += begin
        n = min(q1 - q0, LANES)
        last = (k1 - k0) - (q1 - q0) if is_causal else k1 - k0
        keys = max(0, min(k1 - k0, n + last))
        q = _pack(query[b, q0 : q0 + n, h], scale)
        do = _pack(dout[b, q0 : q0 + n, h], ONE)
        o = _pack(out[b, q0 : q0 + n, h], ONE)
        k, v = key[b, k0 : k0 + keys, h // group], value[b, k0 : k0 + keys, h // group]
        p = np.empty(_HEIGHT * LANES, np.float32)
        ds = np.empty(_HEIGHT * LANES, np.float32)
        dq = np.zeros(head_dim * LANES, np.float32)
        shift = np.zeros(LANES, np.float32)
        dots = np.zeros(LANES, np.float32)
        for i in range(n):
            shift[i] = ZERO if lse[b, h, q0 + i] == _MINUS_INF else lse[b, h, q0 + i]
        for d in range(head_dim):
            do_row, o_row = do[d * LANES : (d + 1) * LANES], o[d * LANES : (d + 1) * LANES]
            for j in range(LANES):
                dots[j] += do_row[j] * o_row[j]
        for i in range(n):
            delta[b, h, q0 + i] = dots[i]
        for t in range(0, keys, _HEIGHT):
            height = min(_HEIGHT, keys - t)
            _multiply(k[t : t + height], q, p)
            if t + height - 1 > last:
                _hide(p, height, t - last, 1)
            _multiply(v[t : t + height], do, ds)
            for i in range(height):
                p_row, ds_row = p[i * LANES : (i + 1) * LANES], ds[i * LANES : (i + 1) * LANES]
                for j in range(LANES):
                    ds_row[j] = exp(p_row[j] - shift[j]) * (ds_row[j] - dots[j])
            _multiply_add(k[t : t + height].T, ds, dq)
        _unpack(dq, np.full(LANES, scale), dquery[b, q0 : q0 + n, h])


@kernel
def _dkey_dvalue_kernel(
    query: Array,
    key: Array,
    value: Array,
    dout: Array,
    lse: Array,
    delta: Array,
    is_causal: bool,
    scale: float,
    spans: Array,
    blocks: Array,
    dkey: Array,
    dvalue: Array,
) -> None:
    """dvalue_j = sum_i P_ij dout_i,  dkey_j = scale * sum_i P_ij (dout_i . v_j - delta_i) q_i.

    Summed over the queries of all heads that share the key head.
    """
    kv_heads, head_dim = key.shape[2:]
    group = query.shape[2] // kv_heads
    for item in prange(kv_heads * blocks.shape[0]):
        kv_head = item // blocks.shape[0]
        sequence, begin = blocks[item % blocks.shape[0]]
        b, q0, q1, k0, k1 = spans[sequence]
        k0 += begin
        n = min(k1 - k0, LANES)
        # Query i sees lane j if j <= i + last; the first that sees any is -last.
        last = (k1 - k0) - (q1 - q0) if is_causal else LANES
        k = _pack(key[b, k0 : k0 + n, kv_head], scale)
        v = _pack(value[b, k0 : k0 + n, kv_head], ONE)
        p = np.empty(_HEIGHT * LANES, np.float32)
        ds = np.empty(_HEIGHT * LANES, np.float32)
        dk = np.zeros(head_dim * LANES, np.float32)
        dv = np.zeros(head_dim * LANES, np.float32)
        for h in range(kv_head * group, (kv_head + 1) * group):
            for t in range(q0 + max(0, -last), q1, _HEIGHT):
                height = min(_HEIGHT, q1 - t)
                q, do = query[b, t : t + height, h], dout[b, t : t + height, h]
                _multiply(q, k, p)
                if t - q0 + last < LANES - 1:
                    _hide(p, height, t - q0 + last + 1, -1)
                _multiply(do, v, ds)
                for i in range(height):
                    shift = ZERO if lse[b, h, t + i] == _MINUS_INF else lse[b, h, t + i]
                    dot = delta[b, h, t + i]
                    p_row, ds_row = p[i * LANES : (i + 1) * LANES], ds[i * LANES : (i + 1) * LANES]
                    for j in range(LANES):
                        p_row[j] = exp(p_row[j] - shift)
                        ds_row[j] = p_row[j] * (ds_row[j] - dot)
                _multiply_add(do.T, p, dv)
                _multiply_add(q.T, ds, dk)
        _unpack(dk, np.full(LANES, scale), dkey[b, k0 : k0 + n, kv_head])
        _unpack(dv, np.full(LANES, ONE), dvalue[b, k0 : k0 + n, kv_head])


def _spans(
    query: Array, key: Array, cu_seqlens_q: Array | None, cu_seqlens_k: Array | None
) -> Array:
    """[sequences, 5]: batch index, begin and end of the queries, begin and end of the keys."""
    if cu_seqlens_q is None or cu_seqlens_k is None:
        spans = np.zeros((query.shape[0], 5), np.int64)
        spans[:, 0] = np.arange(query.shape[0])
        spans[:, 2], spans[:, 4] = query.shape[1], key.shape[1]
    else:
        spans = np.zeros((cu_seqlens_q.size - 1, 5), np.int64)
        spans[:, 1], spans[:, 2] = cu_seqlens_q[:-1], cu_seqlens_q[1:]
        spans[:, 3], spans[:, 4] = cu_seqlens_k[:-1], cu_seqlens_k[1:]
    return spans


def _blocks(lengths: Array) -> Array:
    """[blocks, 2]: sequence, and offset within it, of every block of LANES tokens."""
    counts = -(-lengths // LANES)
    sequence = np.repeat(np.arange(lengths.size), counts)
    within = np.arange(sequence.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([sequence, within * LANES], axis=1)


def _batched(*arrays: Array) -> tuple[Array, ...]:
    """Packed arrays with a batch dim of 1 in front."""
    return tuple(x[None] if arrays[0].ndim == 3 else x for x in arrays)


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
    """(out = softmax(scale * q k^T) v, lse = log sum exp(scale * q k^T)).

    A query without keys gives out 0 and lse -inf.
    """
    spans = _spans(query, key, cu_seqlens_q, cu_seqlens_k)
    queries = spans[:, 2] - spans[:, 1]
    if queries.max(initial=0) <= _FEW:
        # Generation: the lanes would be empty, and BLAS reads the keys once.
        return reference_attention(
            query, key, value, is_causal, scale, cu_seqlens_q, cu_seqlens_k, out
        )
    if out is None:
        out = np.empty(query.shape, np.float32)
    lse = np.empty((*query.shape[:-3], query.shape[-2], query.shape[-3]), np.float32)
    q, k, v, o, log_sums = _batched(query, key, value, out, lse)
    blocks = _blocks(queries)
    _forward_kernel(q, k, v, is_causal, np.float32(scale), spans, blocks, o, log_sums)
    return out, lse


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
    if dquery is None:
        dquery = np.empty(query.shape, np.float32)
    if dkey is None:
        dkey = np.empty(key.shape, np.float32)
    if dvalue is None:
        dvalue = np.empty(value.shape, np.float32)
    spans = _spans(query, key, cu_seqlens_q, cu_seqlens_k)
    q, k, v, do, o, log_sums = _batched(query, key, value, dout, out, lse)
    dq, dk, dv = _batched(dquery, dkey, dvalue)
    delta = np.empty(log_sums.shape, np.float32)
    factor = np.float32(scale)
    blocks = _blocks(spans[:, 2] - spans[:, 1])
    _dquery_kernel(q, k, v, do, o, log_sums, is_causal, factor, spans, blocks, delta, dq)
    blocks = _blocks(spans[:, 4] - spans[:, 3])
    _dkey_dvalue_kernel(q, k, v, do, log_sums, delta, is_causal, factor, spans, blocks, dk, dv)
    return dquery, dkey, dvalue
