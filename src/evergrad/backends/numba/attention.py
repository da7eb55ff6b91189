"""Scaled dot-product attention in tiles (Dao et al. 2022), GQA and packed sequences included.

Inside, everything is 4-D: query, out [batch, tokens, heads, head_dim], lse [batch, heads, tokens];
a packed batch has batch 1. `spans` [sequences, 5] says where each sequence lies: its batch index,
then begin and end of its queries and of its keys.

A tile is [height, LANES], flat, with LANES tokens side by side: queries in the forward pass and for
dquery, keys for dkey and dvalue. So the maximum, the sum and the products of LANES rows of scores
advance together in vector registers, and no sum runs across a register.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ..reference import attention as reference_attention
from ._kernel import inline, kernel, present
from ._math import ONE, ZERO, exp, tanh
from .dropout import mix32, mix64

Array = NDArray[Any]
Rules: TypeAlias = tuple[Any, ...]
Place: TypeAlias = tuple[int, int, int, int]

_u32 = np.uint32
_u64 = np.uint64

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
def _hide(scores: Array, height: int, low: int, high: int) -> None:
    """Put -inf where a query may not look: lane j of row i is seen if low + i <= j < high + i."""
    for i in range(height):
        begin, end = min(max(low + i, 0), LANES), min(max(high + i, 0), LANES)
        for j in range(begin):
            scores[i * LANES + j] = _MINUS_INF
        for j in range(max(begin, end), LANES):
            scores[i * LANES + j] = _MINUS_INF


# What changes the scores and probabilities of every kernel: (bias, add, mask, slopes, softcap,
# threshold, keep, seed, offset, counts). The arrays are [batch, heads, rows, keys] with axes of
# size 1 where they broadcast, slopes [sequences, heads]; an empty one, or a zero, changes nothing.
# `counts` are [heads, tokens_q, tokens_k] of the whole call, for the counters of the dropout.


@inline
def _changed(rules: Rules) -> bool:
    bias, add, mask, slopes, softcap = rules[:5]
    return softcap != ZERO or bias.size + add.size + mask.size + slopes.size > 0


@inline
def _entry(x: Array, b: int, h: int, i: int, j: int) -> float:
    """x[b, h, i, j], with axes of size 1 broadcast."""
    return x[min(b, x.shape[0] - 1), min(h, x.shape[1] - 1), min(i, x.shape[2] - 1), j]


@inline
def _change(
    rules: Rules,
    place: Place,
    swapped: bool,
    row: int,
    lane: int,
    height: int,
    n: int,
    scores: Array,
    derivative: Array,
) -> None:
    """The scores of a tile: softcap, ALiBi, bias and masks; -inf where they hide.

    Rows are keys from `row` on, lanes queries from `lane` on, or the other way round (`swapped`).
    `place` is (sequence, index among the batch entries, head, tokens_k - tokens_q).
    """
    bias, add, mask, slopes, softcap = rules[:5]
    sequence, b, h, shift = place
    for r in range(height):
        for c in range(n):
            i, j = (row + r, lane + c) if swapped else (lane + c, row + r)
            x = scores[r * LANES + c]
            if softcap != ZERO:
                t = tanh(x / softcap)
                derivative[r * LANES + c] = ONE - t * t
                x = softcap * t
            if slopes.size:
                slope = slopes[min(sequence, slopes.shape[0] - 1), h]
                x -= slope * np.float32(abs(i + shift - j))
            if bias.size:
                a = _entry(bias, b, h, i, j)
                x = a if a == _MINUS_INF else x + a
            if add.size:
                a = _entry(add, b, h, i, j)
                x = a if a == _MINUS_INF else x + a
            if mask.size and not _entry(mask, b, h, i, j):
                x = _MINUS_INF
            scores[r * LANES + c] = x


@inline
def _draw(rules: Rules, first: int, swapped: bool, height: int, n: int, kept: Array) -> None:
    """The dropout's 0 and 1 / (1 - p) of a tile whose first query and key have counter `first`."""
    threshold, keep, seed, offset, counts = rules[5:]
    step = counts[2]
    for r in range(height):
        for c in range(n):
            within = r * step + c if swapped else c * step + r
            counter = offset + _u64(first + within)
            key = mix64(seed ^ mix64(counter >> _u64(32)))
            x = mix32(_u32(_u32(counter) ^ _u32(key)))
            x = mix32(_u32(x + _u32(key >> _u64(32))))
            kept[r * LANES + c] = keep if x >= threshold else ZERO


@kernel
def _forward_kernel(
    query: Array,
    key: Array,
    value: Array,
    rules: Rules,
    left: int,
    right: int,
    scale: float,
    spans: Array,
    blocks: Array,
    out: Array,
    lse: Array,
) -> None:
    """Online softmax: a running maximum for each query; a new one rescales the sums so far."""
    heads, head_dim = query.shape[2:]
    group = heads // key.shape[2]
    threshold, counts = rules[5], rules[9]
    for item in prange(heads * blocks.shape[0]):
        h = item // blocks.shape[0]
        sequence, begin = blocks[item % blocks.shape[0]]
        b, q0, q1, k0, k1 = spans[sequence]
        shift = (k1 - k0) - (q1 - q0)
        q0 += begin
        n = min(q1 - q0, LANES)
        # Lane i sees the keys from i + least to i + last.
        least, last = begin + shift - left, begin + shift + right
        first, keys = max(0, least), max(0, min(k1 - k0, n + last))
        q = _pack(query[b, q0 : q0 + n, h], scale)
        k, v = key[b, k0 : k0 + keys, h // group], value[b, k0 : k0 + keys, h // group]
        scores = np.empty(_HEIGHT * LANES, np.float32)
        spare = np.empty(_HEIGHT * LANES, np.float32)
        sums = np.zeros(head_dim * LANES, np.float32)
        total = np.zeros(LANES, np.float32)
        peak = np.full(LANES, _MINUS_INF)
        top = np.zeros(LANES, np.float32)
        shrink = np.empty(LANES, np.float32)
        for t in range(first, keys, _HEIGHT):
            height = min(_HEIGHT, keys - t)
            _multiply(k[t : t + height], q, scores)
            if _changed(rules):
                place = (sequence, b, h, shift)
                _change(rules, place, False, t, begin, height, n, scores, spare)
            if t + height - 1 > last or t < n - 1 + least:
                _hide(scores, height, t - last, t - least + 1)
            for j in range(LANES):
                shrink[j] = peak[j]
            for i in range(height):
                row = scores[i * LANES : (i + 1) * LANES]
                for j in range(LANES):
                    peak[j] = row[j] if row[j] > peak[j] else peak[j]
            for j in range(LANES):
                top[j] = ZERO if peak[j] == _MINUS_INF else peak[j]
                shrink[j] = exp(shrink[j] - top[j])
                total[j] *= shrink[j]
            for i in range(height):
                row = scores[i * LANES : (i + 1) * LANES]
                for j in range(LANES):
                    row[j] = exp(row[j] - top[j])
                    total[j] += row[j]
            if threshold:
                at = ((b * heads + h) * counts[1] + q0) * counts[2] + k0 + t
                _draw(rules, at, False, height, n, spare)
                for i in range(height * LANES):
                    scores[i] *= spare[i]
            for d in range(head_dim):
                row = sums[d * LANES : (d + 1) * LANES]
                for j in range(LANES):
                    row[j] *= shrink[j]
            _multiply_add(v[t : t + height].T, scores, sums)
        for i in range(n):
            lse[b, h, q0 + i] = top[i] + np.log(total[i])
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
    rules: Rules,
    left: int,
    right: int,
    scale: float,
    spans: Array,
    blocks: Array,
    first_head: int,
    last_head: int,
    delta: Array,
    dquery: Array,
    dbias: Array,
) -> None:
    """dquery = scale * sum_j P_ij (dout_i . v_j - delta_i) k_j;  delta_i = dout_i . out_i.

    For the heads from `first_head` to `last_head`: no two of their blocks share entries of dbias.
    """
    heads, head_dim = query.shape[2:]
    group = heads // key.shape[2]
    softcap, threshold, counts = rules[4], rules[5], rules[9]
    for item in prange((last_head - first_head) * blocks.shape[0]):
        h = first_head + item // blocks.shape[0]
        sequence, begin = blocks[item % blocks.shape[0]]
        b, q0, q1, k0, k1 = spans[sequence]
        shift = (k1 - k0) - (q1 - q0)
        q0 += begin
        n = min(q1 - q0, LANES)
        least, last = begin + shift - left, begin + shift + right
        first, keys = max(0, least), max(0, min(k1 - k0, n + last))
        q = _pack(query[b, q0 : q0 + n, h], scale)
        do = _pack(dout[b, q0 : q0 + n, h], ONE)
        o = _pack(out[b, q0 : q0 + n, h], ONE)
        k, v = key[b, k0 : k0 + keys, h // group], value[b, k0 : k0 + keys, h // group]
        p = np.empty(_HEIGHT * LANES, np.float32)
        ds = np.empty(_HEIGHT * LANES, np.float32)
        derivative = np.empty(_HEIGHT * LANES, np.float32)
        kept = np.empty(_HEIGHT * LANES, np.float32)
        dq = np.zeros(head_dim * LANES, np.float32)
        top = np.zeros(LANES, np.float32)
        dots = np.zeros(LANES, np.float32)
        for i in range(n):
            top[i] = ZERO if lse[b, h, q0 + i] == _MINUS_INF else lse[b, h, q0 + i]
        for d in range(head_dim):
            do_row, o_row = do[d * LANES : (d + 1) * LANES], o[d * LANES : (d + 1) * LANES]
            for j in range(LANES):
                dots[j] += do_row[j] * o_row[j]
        for i in range(n):
            delta[b, h, q0 + i] = dots[i]
        for t in range(first, keys, _HEIGHT):
            height = min(_HEIGHT, keys - t)
            _multiply(k[t : t + height], q, p)
            if _changed(rules):
                place = (sequence, b, h, shift)
                _change(rules, place, False, t, begin, height, n, p, derivative)
            if t + height - 1 > last or t < n - 1 + least:
                _hide(p, height, t - last, t - least + 1)
            _multiply(v[t : t + height], do, ds)
            if threshold:
                at = ((b * heads + h) * counts[1] + q0) * counts[2] + k0 + t
                _draw(rules, at, False, height, n, kept)
                for i in range(height * LANES):
                    ds[i] = ds[i] * kept[i] if kept[i] > ZERO else ZERO
            for i in range(height):
                p_row, ds_row = p[i * LANES : (i + 1) * LANES], ds[i * LANES : (i + 1) * LANES]
                for j in range(LANES):
                    ds_row[j] = exp(p_row[j] - top[j]) * (ds_row[j] - dots[j])
            if dbias.size:
                total = dbias[min(b, dbias.shape[0] - 1), min(h, dbias.shape[1] - 1)]
                for c in range(n):
                    row = total[min(begin + c, total.shape[0] - 1)]
                    for i in range(height):
                        row[t + i] += ds[i * LANES + c]
            if softcap != ZERO:
                for i in range(height * LANES):
                    ds[i] *= derivative[i]
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
    rules: Rules,
    left: int,
    right: int,
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
    heads = query.shape[2]
    group = heads // kv_heads
    softcap, threshold, counts = rules[4], rules[5], rules[9]
    for item in prange(kv_heads * blocks.shape[0]):
        kv_head = item // blocks.shape[0]
        sequence, begin = blocks[item % blocks.shape[0]]
        b, q0, q1, k0, k1 = spans[sequence]
        shift = (k1 - k0) - (q1 - q0)
        k0 += begin
        n = min(k1 - k0, LANES)
        # Query i sees the lanes from i + least to i + last.
        least, last = shift - left - begin, shift + right - begin
        first, end = max(0, -last), min(q1 - q0, n - least)
        k = _pack(key[b, k0 : k0 + n, kv_head], scale)
        v = _pack(value[b, k0 : k0 + n, kv_head], ONE)
        p = np.empty(_HEIGHT * LANES, np.float32)
        ds = np.empty(_HEIGHT * LANES, np.float32)
        derivative = np.empty(_HEIGHT * LANES, np.float32)
        kept = np.empty(_HEIGHT * LANES, np.float32)
        dk = np.zeros(head_dim * LANES, np.float32)
        dv = np.zeros(head_dim * LANES, np.float32)
        for h in range(kv_head * group, (kv_head + 1) * group):
            for t in range(q0 + first, q0 + end, _HEIGHT):
                height = min(_HEIGHT, q0 + end - t)
                q, do = query[b, t : t + height, h], dout[b, t : t + height, h]
                _multiply(q, k, p)
                if _changed(rules):
                    place = (sequence, b, h, shift)
                    _change(rules, place, True, t - q0, begin, height, n, p, derivative)
                if t - q0 + last < LANES - 1 or t - q0 + height - 1 + least > 0:
                    _hide(p, height, t - q0 + least, t - q0 + last + 1)
                _multiply(do, v, ds)
                if threshold:
                    at = ((b * heads + h) * counts[1] + t) * counts[2] + k0
                    _draw(rules, at, True, height, n, kept)
                    for i in range(height * LANES):
                        ds[i] = ds[i] * kept[i] if kept[i] > ZERO else ZERO
                for i in range(height):
                    top = ZERO if lse[b, h, t + i] == _MINUS_INF else lse[b, h, t + i]
                    dot = delta[b, h, t + i]
                    p_row, ds_row = p[i * LANES : (i + 1) * LANES], ds[i * LANES : (i + 1) * LANES]
                    for j in range(LANES):
                        p_row[j] = exp(p_row[j] - top)
                        ds_row[j] = p_row[j] * (ds_row[j] - dot)
                if softcap != ZERO:
                    for i in range(height * LANES):
                        ds[i] *= derivative[i]
                if threshold:
                    for i in range(height * LANES):
                        p[i] = p[i] * kept[i] if kept[i] > ZERO else ZERO
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


def _rules(
    query: Array,
    key: Array,
    attn_mask: Array | None,
    bias: Array | None,
    dropout_p: float,
    softcap: float,
    alibi_slopes: Array | None,
    seed: int,
    offset: int,
) -> Rules:
    is_bool = attn_mask is not None and attn_mask.dtype == bool
    no_mask = np.empty((0,) * 4, np.bool_)
    return (
        present(bias, 4),
        present(None if is_bool else attn_mask, 4),
        attn_mask if is_bool else no_mask,
        present(alibi_slopes if alibi_slopes is None else np.atleast_2d(alibi_slopes), 2),
        np.float32(softcap),
        _u32(dropout_p * 2.0**32),
        np.float32(1 / (1 - dropout_p)),
        _u64(seed),
        _u64(offset),
        np.array([query.shape[-2], query.shape[-3], key.shape[-3]]),
    )


def _window(spans: Array, window_size: tuple[int, int]) -> tuple[int, int]:
    """How far queries see to the left and to the right; an unlimited side reaches everything."""
    if not len(spans):
        return window_size
    unlimited = int((spans[:, 2] - spans[:, 1] + spans[:, 4] - spans[:, 3]).max())
    left, right = (unlimited if side < 0 else min(side, unlimited) for side in window_size)
    return left, right


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
    """(out = dropout(softmax(scores)) v, lse = log sum exp(scores)).

    A query without keys gives out 0 and lse -inf.
    """
    spans = _spans(query, key, cu_seqlens_q, cu_seqlens_k)
    queries = spans[:, 2] - spans[:, 1]
    if queries.max(initial=0) <= _FEW:
        # Generation: the lanes would be empty, and BLAS reads the keys once.
        return reference_attention(
            query, key, value, attn_mask, bias, dropout_p, scale, window_size, softcap,
            alibi_slopes,
            cu_seqlens_q, cu_seqlens_k, seed, offset, out,
        )  # fmt: skip
    if out is None:
        out = np.empty(query.shape, np.float32)
    lse = np.empty((*query.shape[:-3], query.shape[-2], query.shape[-3]), np.float32)
    rules = _rules(query, key, attn_mask, bias, dropout_p, softcap, alibi_slopes, seed, offset)
    q, k, v, o, log_sums = _batched(query, key, value, out, lse)
    left, right = _window(spans, window_size)
    blocks = _blocks(queries)
    _forward_kernel(q, k, v, rules, left, right, np.float32(scale), spans, blocks, o, log_sums)
    return out, lse


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
    if dquery is None:
        dquery = np.empty(query.shape, np.float32)
    if dkey is None:
        dkey = np.empty(key.shape, np.float32)
    if dvalue is None:
        dvalue = np.empty(value.shape, np.float32)
    if bias is not None and dbias is None:
        dbias = np.zeros(bias.shape, np.float32)
    spans = _spans(query, key, cu_seqlens_q, cu_seqlens_k)
    rules = _rules(query, key, attn_mask, bias, dropout_p, softcap, alibi_slopes, seed, offset)
    q, k, v, do, o, log_sums = _batched(query, key, value, dout, out, lse)
    dq, dk, dv = _batched(dquery, dkey, dvalue)
    delta = np.empty(log_sums.shape, np.float32)
    left, right = _window(spans, window_size)
    factor = np.float32(scale)
    blocks = _blocks(spans[:, 2] - spans[:, 1])
    for part, first, last in _apart(blocks, query.shape[-2], dbias):
        _dquery_kernel(
            q, k, v, do, o, log_sums, rules, left, right, factor, spans, part, first, last, delta,
            dq, present(dbias, 4),
        )  # fmt: skip
    blocks = _blocks(spans[:, 4] - spans[:, 3])
    _dkey_dvalue_kernel(
        q, k, v, do, log_sums, delta, rules, left, right, factor, spans, blocks, dk, dv
    )
    return dquery, dkey, dvalue, dbias


def _apart(blocks: Array, heads: int, dbias: Array | None) -> Iterator[tuple[Array, int, int]]:
    """Blocks and a range of heads at a time, such that no two add to one entry of dbias."""
    parts = [blocks]
    if dbias is not None and len(blocks):
        if dbias.shape[2] == 1:
            parts = list(blocks[:, None])
        elif dbias.shape[0] == 1:
            parts = np.split(blocks, np.flatnonzero(np.diff(blocks[:, 0])) + 1)
    share = dbias is not None and dbias.shape[1] == 1
    for part in parts:
        for h in range(heads if share else 1):
            yield (part, h, h + 1) if share else (part, 0, heads)
