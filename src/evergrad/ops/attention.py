"""Scaled dot-product attention, tiled: the [tokens, tokens] matrix never exists."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends import active
from . import _check


def _last_contiguous(name: str, x: np.ndarray, rank: int) -> None:
    _check.last_contiguous(name, x)
    _check.has_rank(name, x, rank, rank)


_U64 = 2**64 - 1
_BOOL = np.dtype(np.bool_)


def _check_qkv(query: np.ndarray, key: np.ndarray, value: np.ndarray, packed: bool) -> None:
    rank = 3 if packed else 4
    if not active.rowwise(0, query, rank, key, rank, value, rank):
        for name, x in (("query", query), ("key", key), ("value", value)):
            _last_contiguous(name, x, rank)
        _check.same_dtype("query", query, key=key, value=value)
    heads, head_dim = query.shape[-2:]
    kv_heads = key.shape[-2]
    if key.shape[-1] != head_dim:
        raise ValueError(f"key: expected head_dim {head_dim} like query, got shape {key.shape}")
    if value.shape != key.shape:
        raise ValueError(f"value: expected shape {key.shape} like key, got {value.shape}")
    if heads == 0:
        raise ValueError(f"query: expected at least one head, got shape {query.shape}")
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(
            f"key: expected a number of heads that divides query's {heads}, got {kv_heads}"
        )
    if head_dim == 0:
        raise ValueError(f"query: expected head_dim of at least 1, got shape {query.shape}")
    if not packed and key.shape[0] != query.shape[0]:
        raise ValueError(f"key: expected batch {query.shape[0]} like query, got shape {key.shape}")


def _check_sequences(
    query: np.ndarray,
    key: np.ndarray,
    cu_seqlens_q: np.ndarray | None,
    cu_seqlens_k: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    if cu_seqlens_q is None or cu_seqlens_k is None:
        missing = "cu_seqlens_q" if cu_seqlens_q is None else "cu_seqlens_k"
        raise ValueError(f"{missing}: expected offsets beside the other's, got None")
    cu_q = _check.offsets("cu_seqlens_q", cu_seqlens_q, "query", query.shape[0])
    cu_k = _check.offsets("cu_seqlens_k", cu_seqlens_k, "key", key.shape[0])
    if len(cu_q) != len(cu_k):
        raise ValueError(
            f"cu_seqlens_k: expected {len(cu_q) - 1} sequences like cu_seqlens_q, "
            f"got {len(cu_k) - 1}"
        )
    return cu_q, cu_k


def _check_window(window_size: Any, is_causal: bool) -> tuple[int, int]:
    if not isinstance(window_size, (tuple, list)):
        raise TypeError(
            f"window_size: expected a pair (left, right), got {type(window_size).__name__}"
        )
    if len(window_size) != 2:
        raise ValueError(
            f"window_size: expected a pair (left, right), got {_check.shown(window_size)}"
        )
    left = _check.integer("window_size", window_size[0], -1, 2**62)
    right = _check.integer("window_size", window_size[1], -1, 2**62)
    return left, 0 if is_causal else right


def _check_scores(
    name: str, x: Any, query: np.ndarray, key: np.ndarray, longest: tuple[int, int] | None
) -> None:
    """``x`` broadcasts to the scores; of packed sequences (``longest``) each takes a corner."""
    if isinstance(x, np.ndarray) and x.dtype == _BOOL and name == "attn_mask":
        _check.array(name, x, "a bool or float32 numpy array")
        _check.has_rank(name, x, 4, 4)
        if x.size and x.shape[-1] > 1 and x.strides[-1] != 1:
            raise ValueError(f"{name}: expected a contiguous last axis, got strides {x.strides}")
        if any(stride < 0 and length > 1 for stride, length in zip(x.strides, x.shape)):
            raise ValueError(f"{name}: expected no negative strides, got {x.strides}")
    else:
        _last_contiguous(name, x, 4)
        _check.same_dtype("query", query, **{name: x})
    batch, heads, rows, columns = x.shape
    if longest is None:
        tokens_q, tokens_k = query.shape[1], key.shape[1]
        fits = batch in (1, query.shape[0]) and rows in (1, tokens_q) and columns == tokens_k
        wanted = f"[{query.shape[0]} or 1, {query.shape[2]} or 1, {tokens_q} or 1, {tokens_k}]"
    else:
        tokens_q, tokens_k = longest
        fits = batch == 1 and (rows == 1 or rows >= tokens_q) and columns >= tokens_k
        wanted = (
            f"[1, {query.shape[1]} or 1, {tokens_q} or more or 1, {tokens_k} or more] "
            f"for the longest sequences"
        )
    if not fits or heads not in (1, query.shape[-2]):
        raise ValueError(f"{name}: expected shape {wanted}, got {x.shape}")


def _check_slopes(x: Any, query: np.ndarray, sequences: int) -> None:
    _check.floats("alibi_slopes", x)
    _check.same_dtype("query", query, alibi_slopes=x)
    heads = query.shape[-2]
    if x.shape not in ((heads,), (sequences, heads)):
        raise ValueError(
            f"alibi_slopes: expected shape ({heads},) or ({sequences}, {heads}), got {x.shape}"
        )


def _check_options(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    attn_mask: np.ndarray | None,
    bias: np.ndarray | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    window_size: tuple[int, int],
    softcap: float,
    alibi_slopes: np.ndarray | None,
    cu_seqlens_q: np.ndarray | None,
    cu_seqlens_k: np.ndarray | None,
    seed: int | None,
    offset: int,
) -> tuple[Any, ...]:
    """Check what both directions take; what the backends are given between inputs and outputs."""
    packed = cu_seqlens_q is not None or cu_seqlens_k is not None
    _check_qkv(query, key, value, packed)
    longest = None
    if packed:
        cu_seqlens_q, cu_seqlens_k = _check_sequences(query, key, cu_seqlens_q, cu_seqlens_k)
    if attn_mask is not None:
        if packed:
            raise ValueError(
                "attn_mask: expected None with packed sequences, whose scores form no rectangle, "
                f"got {_check.describe(attn_mask)}; bias, window_size and is_causal apply there"
            )
        _check_scores("attn_mask", attn_mask, query, key, None)
    if bias is not None:
        if cu_seqlens_q is not None and cu_seqlens_k is not None:
            longest = (
                int(np.diff(cu_seqlens_q).max(initial=0)),
                int(np.diff(cu_seqlens_k).max(initial=0)),
            )
        _check_scores("bias", bias, query, key, longest)
    if alibi_slopes is not None:
        sequences = query.shape[0] if cu_seqlens_q is None else len(cu_seqlens_q) - 1
        _check_slopes(alibi_slopes, query, sequences)
    dropout_p = _check.number("dropout_p", dropout_p, 0.0, 1.0, open_high=True)
    if seed is not None:
        seed = _check.integer("seed", seed, 0, _U64)
    elif dropout_p:
        raise ValueError(f"seed: expected an integer with dropout_p={dropout_p:g}, got None")
    return (
        attn_mask,
        bias,
        dropout_p,
        1.0 / math.sqrt(query.shape[-1]) if scale is None else _check.number("scale", scale),
        _check_window(window_size, is_causal),
        _check.softcap(softcap),
        alibi_slopes,
        cu_seqlens_q,
        cu_seqlens_k,
        seed or 0,
        _check.integer("offset", offset, 0, _U64),
    )


def _all_apart(others: tuple[np.ndarray | None, ...], *outs: np.ndarray | None) -> bool:
    """At a glance: no output meets the inputs that `active.rowwise`, for floats, cannot look at."""
    return all(x is None or active.apart(x, *outs) for x in others)


def _lse_shape(query: np.ndarray) -> tuple[int, ...]:
    if query.ndim == 3:
        return (query.shape[1], query.shape[0])
    return (query.shape[0], query.shape[2], query.shape[1])


def attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    attn_mask: np.ndarray | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    bias: np.ndarray | None = None,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: np.ndarray | None = None,
    cu_seqlens_q: np.ndarray | None = None,
    cu_seqlens_k: np.ndarray | None = None,
    seed: int | None = None,
    offset: int = 0,
    return_lse: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray | Any:
    r"""dropout(softmax(scores)) value, per sequence and head, with an online softmax.

    scores = softcap * tanh(scale * query key^T / softcap) - alibi + bias + mask, minus infinity
    where hidden. Follows Dao et al. 2022 (FlashAttention): tiles of scores live in cache, and of
    the probabilities only the log-sum-exp of each row is kept. Tiles wholly hidden by ``is_causal``
    or ``window_size`` are skipped; within others a hidden key has weight 0, which does not hide a
    NaN or an infinity in its value.

    Parameters
    ----------
    query : ndarray, float32, [batch, tokens_q, heads, head_dim]
        Or packed: [total_q, heads, head_dim].
    key, value : ndarray, float32, [batch, tokens_k, kv_heads, head_dim], or packed likewise
        Any outer strides, so that slices of a packed query-key-value array need no copy. Fewer
        key/value heads than query heads is grouped-query attention (Ainslie et al. 2023): query
        head h reads key/value head ``h // (heads // kv_heads)``.
    attn_mask : ndarray, bool or float32, [batch | 1, heads | 1, tokens_q | 1, tokens_k], optional
        True attends; a float mask is added to the scores, and hides where it is minus infinity. It
        has no gradient. Not with packed sequences.
    dropout_p : float
        In [0, 1): probabilities are zeroed with it and the others divided by 1 - dropout_p. The
        mask is the one that ``dropout`` draws for [batch, heads, tokens_q, tokens_k] (packed:
        [heads, total_q, total_k]) with the same seed and offset.
    is_causal : bool
        Query i of tokens_q sees the keys j <= i + tokens_k - tokens_q: aligned bottom-right.
    scale : float, optional
        1 / sqrt(head_dim) unless given.
    bias : ndarray, float32, [batch | 1, heads | 1, tokens_q | 1, tokens_k], optional
        Added to the scores, with a gradient (the relative bias of Raffel et al. 2020). For packed
        sequences [1, heads | 1, rows, columns], at least as large as the longest sequences: each
        takes the top left corner.
    window_size : (int, int)
        (left, right): query i sees the keys from i + tokens_k - tokens_q - left to ... + right; -1
        is unlimited (Beltagy et al. 2020, as in FlashAttention).
    softcap : float
        Scores are kept within it (Gemma Team 2024); 0: not.
    alibi_slopes : ndarray, float32, [heads] or [sequences, heads], optional
        slope * abs(i + tokens_k - tokens_q - j) is taken off the scores (Press et al. 2022).
    cu_seqlens_q, cu_seqlens_k : ndarray of int, [sequences + 1], optional
        Offsets at which the sequences of a packed batch start; both or none.
    seed, offset : int
        In [0, 2**64), of the dropout; a seed is needed when dropout_p is positive.
    return_lse : bool
        Also return the log-sum-exp of every row of scores, which the backward needs.
    out : ndarray, optional
        The shape of ``query``; may be strided like it.

    Returns
    -------
    out : ndarray
        float32, the shape of ``query``. A row with nothing to attend to is zero.
    lse : ndarray
        Only with ``return_lse``: float32, [batch, heads, tokens_q] or [heads, total_q]; minus
        infinity for a row with nothing to attend to.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype; for shapes, head counts, offsets or strides that do not fit; for
        a mask with packed sequences, and dropout without a seed.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x = np.ones((1, 3, 2, 4), np.float32)
    >>> out, lse = ops.attention(x, x, x, is_causal=True, scale=0.0, return_lse=True)
    >>> out.shape, np.exp(lse[0, 0]).round(3).tolist()
    ((1, 3, 2, 4), [1.0, 2.0, 3.0])
    """
    options = _check_options(
        query, key, value, attn_mask, bias, dropout_p, is_causal, scale, window_size, softcap,
        alibi_slopes, cu_seqlens_q, cu_seqlens_k, seed, offset,
    )  # fmt: skip
    if out is not None and not (
        active.rowwise(
            1, query, None, key, None, value, None, bias, None, alibi_slopes, None, out, query.shape
        )
        and _all_apart((attn_mask, cu_seqlens_q, cu_seqlens_k), out)
    ):
        _check.output("out", out, query.shape, "query", query, contiguous=False)
        _last_contiguous("out", out, query.ndim)
        _check.no_overlap(
            "out", out, query=query, key=key, value=value, attn_mask=attn_mask, bias=bias,
            alibi_slopes=alibi_slopes, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k,
        )  # fmt: skip
    out, lse = active.attention(query, key, value, *options, out)
    return (out, lse) if return_lse else out


def attention_backward(
    dout: np.ndarray,
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    attn_mask: np.ndarray | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    bias: np.ndarray | None = None,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: np.ndarray | None = None,
    cu_seqlens_q: np.ndarray | None = None,
    cu_seqlens_k: np.ndarray | None = None,
    seed: int | None = None,
    offset: int = 0,
    dquery: np.ndarray | None = None,
    dkey: np.ndarray | None = None,
    dvalue: np.ndarray | None = None,
    dbias: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    r"""Gradients of ``attention``, the scores recomputed tile by tile from ``lse``.

    With P = exp(scores - lse), D the dropout's zeros and factors, delta = rowsum(dout * out):
    dvalue = (D P)^T dout; dS = P * (D * dout value^T - delta); dbias = dS; dS is multiplied by the
    softcap's derivative; dquery = scale * dS key; dkey = scale * dS^T query. (Dao et al. 2022,
    appendix B.)

    Parameters
    ----------
    dout : ndarray, float32, the shape of ``query``
        Last axis contiguous, any outer strides; so too ``out``.
    query, key, value, out, lse : ndarray
        What ``attention`` was given and returned.
    attn_mask, dropout_p, is_causal, scale, bias, window_size, softcap, alibi_slopes
        As in the forward call.
    cu_seqlens_q, cu_seqlens_k, seed, offset
        As in the forward call.
    dquery, dkey, dvalue : ndarray, optional
        Overwritten; may be strided views, such as slices of one gradient of a packed projection.
    dbias : ndarray, optional
        The shape of ``bias``; added to.

    Returns
    -------
    dquery, dkey, dvalue : ndarray
        float32, the shapes of ``query``, ``key``, ``value``.
    dbias : ndarray
        Only with ``bias``: its shape, summed over what it broadcasts.

    Raises
    ------
    TypeError, ValueError
        As ``attention``; for a ``dbias`` without a ``bias``.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x = np.ones((1, 3, 2, 4), np.float32)
    >>> out, lse = ops.attention(x, x, x, return_lse=True)
    >>> dquery, dkey, dvalue = ops.attention_backward(x, x, x, x, out, lse)
    >>> round(float(dvalue.sum()), 3)
    24.0
    """
    options = _check_options(
        query, key, value, attn_mask, bias, dropout_p, is_causal, scale, window_size, softcap,
        alibi_slopes, cu_seqlens_q, cu_seqlens_k, seed, offset,
    )  # fmt: skip
    _check.required("lse", lse, _lse_shape(query), "query", query)
    if dbias is not None:
        if bias is None:
            raise ValueError(f"dbias: expected None without a bias, got {_check.describe(dbias)}")
        _check.output("dbias", dbias, bias.shape, "query", query)
    plain = dout is not None and out is not None and active.rowwise(
        4, query, None, key, None, value, None, lse, None, bias, None, alibi_slopes, None,
        dout, query.shape, out, query.shape,
        dquery, query.shape, dkey, key.shape, dvalue, value.shape, dbias, None,
    )  # fmt: skip
    others = (attn_mask, cu_seqlens_q, cu_seqlens_k)
    if not (plain and _all_apart(others, dquery, dkey, dvalue, dbias)):
        for name, x in (("dout", dout), ("out", out)):
            _last_contiguous(name, x, query.ndim)
            _check.has_shape(name, x, query.shape)
        _check.same_dtype("query", query, dout=dout, out=out)
        for name, d, like in (
            ("dquery", dquery, query),
            ("dkey", dkey, key),
            ("dvalue", dvalue, value),
        ):
            if d is not None:
                _check.output(name, d, like.shape, "query", query, contiguous=False)
                _last_contiguous(name, d, like.ndim)
        inputs = {
            "dout": dout, "query": query, "key": key, "value": value, "out": out, "lse": lse,
            "attn_mask": attn_mask, "bias": bias, "alibi_slopes": alibi_slopes,
            "cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k,
        }  # fmt: skip
        _check.each_apart(inputs, dquery=dquery, dkey=dkey, dvalue=dvalue, dbias=dbias)
    grads = active.attention_backward(
        dout, query, key, value, out, lse, *options, dquery, dkey, dvalue, dbias
    )
    return grads if bias is not None else grads[:3]
