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


def _boundaries(name: str, cu_seqlens: Any, tokens_name: str, tokens: int) -> np.ndarray:
    if not isinstance(cu_seqlens, np.ndarray) or cu_seqlens.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected an int64 array, got {_check.describe(cu_seqlens)}")
    _check.has_rank(name, cu_seqlens, 1, 1)
    cu = np.ascontiguousarray(cu_seqlens, np.int64)
    if len(cu) < 1 or cu[0] != 0 or cu[-1] != tokens or (cu[1:] < cu[:-1]).any():
        raise ValueError(
            f"{name}: expected offsets that rise from 0 to the {tokens} tokens of {tokens_name}, "
            f"got {np.array2string(cu, threshold=6)}"
        )
    return cu


def _check_inputs(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    scale: float | None,
    cu_seqlens_q: np.ndarray | None,
    cu_seqlens_k: np.ndarray | None,
) -> tuple[float, np.ndarray | None, np.ndarray | None]:
    packed = cu_seqlens_q is not None or cu_seqlens_k is not None
    rank = 3 if packed else 4
    for name, x in (("query", query), ("key", key), ("value", value)):
        _last_contiguous(name, x, rank)
    _check.same_dtype("query", query, key=key, value=value)
    heads, head_dim = query.shape[-2:]
    kv_heads = key.shape[-2]
    if key.shape[-1] != head_dim:
        raise ValueError(f"key: expected head_dim {head_dim} like query, got shape {key.shape}")
    if value.shape != key.shape:
        raise ValueError(f"value: expected shape {key.shape} like key, got {value.shape}")
    if kv_heads == 0 or heads % kv_heads:
        raise ValueError(
            f"key: expected a number of heads that divides query's {heads}, got {kv_heads}"
        )
    if head_dim == 0:
        raise ValueError(f"query: expected head_dim of at least 1, got shape {query.shape}")
    if not packed and key.shape[0] != query.shape[0]:
        raise ValueError(f"key: expected batch {query.shape[0]} like query, got shape {key.shape}")
    if packed:
        if cu_seqlens_q is None or cu_seqlens_k is None:
            missing = "cu_seqlens_q" if cu_seqlens_q is None else "cu_seqlens_k"
            raise ValueError(f"{missing}: expected offsets beside the other's, got None")
        cu_seqlens_q = _boundaries("cu_seqlens_q", cu_seqlens_q, "query", query.shape[0])
        cu_seqlens_k = _boundaries("cu_seqlens_k", cu_seqlens_k, "key", key.shape[0])
        if len(cu_seqlens_q) != len(cu_seqlens_k):
            raise ValueError(
                f"cu_seqlens_k: expected {len(cu_seqlens_q) - 1} sequences like cu_seqlens_q, "
                f"got {len(cu_seqlens_k) - 1}"
            )
    scale = 1.0 / math.sqrt(head_dim) if scale is None else _check.number("scale", scale)
    return scale, cu_seqlens_q, cu_seqlens_k


def _lse_shape(query: np.ndarray) -> tuple[int, ...]:
    if query.ndim == 3:
        return (query.shape[1], query.shape[0])
    return (query.shape[0], query.shape[2], query.shape[1])


def attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    cu_seqlens_q: np.ndarray | None = None,
    cu_seqlens_k: np.ndarray | None = None,
    return_lse: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    r"""softmax(scale * query key^T) value, per sequence and head, with an online softmax.

    Follows Dao et al. 2022 (FlashAttention): tiles of scores live in cache, and of the
    probabilities only the log-sum-exp of each row is kept.

    Parameters
    ----------
    query : ndarray, float32, [batch, tokens_q, heads, head_dim]
        Or packed: [total_q, heads, head_dim].
    key, value : ndarray, float32, [batch, tokens_k, kv_heads, head_dim], or packed likewise
        Any outer strides, so that slices of a packed query-key-value array need no copy. Fewer
        key/value heads than query heads is grouped-query attention (Ainslie et al. 2023): query
        head h reads key/value head ``h // (heads // kv_heads)``.
    is_causal : bool
        Query i of tokens_q sees the keys j <= i + tokens_k - tokens_q: aligned bottom-right.
    scale : float, optional
        1 / sqrt(head_dim) unless given.
    cu_seqlens_q, cu_seqlens_k : ndarray of int, [sequences + 1], optional
        Offsets at which the sequences of a packed batch start; both or none.
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
        For a wrong type or dtype; for shapes, head counts, offsets or strides that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> x = np.ones((1, 3, 2, 4), np.float32)
    >>> out, lse = ops.attention(x, x, x, is_causal=True, scale=0.0, return_lse=True)
    >>> out.shape, np.exp(lse[0, 0]).round(3).tolist()
    ((1, 3, 2, 4), [1.0, 2.0, 3.0])
    """
    scale, cu_seqlens_q, cu_seqlens_k = _check_inputs(
        query, key, value, scale, cu_seqlens_q, cu_seqlens_k
    )
    if out is not None:
        _check.output("out", out, query.shape, "query", query, contiguous=False)
        _last_contiguous("out", out, query.ndim)
        _check.no_overlap("out", out, query=query, key=key, value=value)
    out, lse = active.attention(
        query, key, value, bool(is_causal), scale, cu_seqlens_q, cu_seqlens_k, out
    )
    return (out, lse) if return_lse else out


def attention_backward(
    dout: np.ndarray,
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    cu_seqlens_q: np.ndarray | None = None,
    cu_seqlens_k: np.ndarray | None = None,
    dquery: np.ndarray | None = None,
    dkey: np.ndarray | None = None,
    dvalue: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Gradients of ``attention``, the scores recomputed tile by tile from ``lse``.

    With P = exp(scale * query key^T - lse) and delta = rowsum(dout * out):
    dvalue = P^T dout; dS = P * (dout value^T - delta); dquery = scale * dS key;
    dkey = scale * dS^T query. (Dao et al. 2022, appendix B.)

    Parameters
    ----------
    dout : ndarray, float32, the shape of ``query``
        Last axis contiguous, any outer strides; so too ``out``.
    query, key, value, out, lse : ndarray
        What ``attention`` was given and returned.
    is_causal, scale, cu_seqlens_q, cu_seqlens_k
        As in the forward call.
    dquery, dkey, dvalue : ndarray, optional
        Overwritten; may be strided views, such as slices of one gradient of a packed projection.

    Returns
    -------
    dquery, dkey, dvalue : ndarray
        float32, the shapes of ``query``, ``key``, ``value``.

    Raises
    ------
    TypeError, ValueError
        As ``attention``.

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
    scale, cu_seqlens_q, cu_seqlens_k = _check_inputs(
        query, key, value, scale, cu_seqlens_q, cu_seqlens_k
    )
    for name, x in (("dout", dout), ("out", out)):
        _last_contiguous(name, x, query.ndim)
        _check.has_shape(name, x, query.shape)
    _check.required("lse", lse, _lse_shape(query), "query", query)
    _check.same_dtype("query", query, dout=dout, out=out)
    inputs = {"dout": dout, "query": query, "key": key, "value": value, "out": out, "lse": lse}
    for name, d, like in (
        ("dquery", dquery, query),
        ("dkey", dkey, key),
        ("dvalue", dvalue, value),
    ):
        if d is not None:
            _check.output(name, d, like.shape, "query", query, contiguous=False)
            _last_contiguous(name, d, like.ndim)
            _check.no_overlap(name, d, **inputs)
    return active.attention_backward(
        dout, query, key, value, out, lse, bool(is_causal), scale, cu_seqlens_q, cu_seqlens_k,
        dquery, dkey, dvalue,
    )  # fmt: skip
