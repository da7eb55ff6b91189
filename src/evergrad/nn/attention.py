"""Attention over packed sequences: of a text's tokens to each other, and to another text's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from .. import ops
from ._backward import NEITHER, NO_BACKWARD, NOTHING, once
from ._buffer import Array, empty
from .linear import Linear, ResidualLinear
from .module import Module
from .packed import PackedLinear
from .random import RandomStream
from .rotary import Rotation

__all__ = ["Attention", "CrossAttention"]


class LayerCache(Protocol):
    """The keys and values of earlier tokens, in one layer."""

    def attend(self, query: Array, key_value: Array, **options: Any) -> Array:
        """Append key_value [tokens, 2 kv_heads, head_dim]; attention of query to all there is."""
        ...


class Attention(Module):
    """Multi-head self-attention, its way into the heads and back out of them.

    Query, key and value come from one packed product and stay where it wrote them: attention
    reads and writes strided views, nothing is transposed or copied.

    Parameters
    ----------
    dim : int
        Size of a token's vector.
    heads : int
        Number of query heads.
    kv_heads : int, optional
        Number of key and value heads, a divisor of heads, each of which a group of query heads
        shares. Default: heads.
    head_dim : int, optional
        Size of a head; default: dim / heads.
    bias, out_bias : bool, default True and as `bias`
        Whether `qkv` and `proj` add one.
    is_causal : bool, default True
        Whether each token sees only itself and what came before it.
    scale : float, optional
        Of the scores; default 1 / sqrt(head_dim).
    window : int, optional
        Each token sees so many before it (and, unless causal, behind it). Default: all.
    attention_dropout, dropout : float, default 0.0
        Of the attention weights and of the output, in training mode.
    stream : RandomStream, optional
        Where the dropout masks come from.
    std, out_std : float, optional
        Standard deviations of the initial weights of `qkv` and of `proj`.
    rng : numpy.random.Generator, optional
        Source of the initial weights.

    Attributes
    ----------
    qkv : PackedLinear
        [(heads + 2 kv_heads) head_dim, dim]: queries, then keys, then values, each head by head.
    proj : ResidualLinear
        [dim, heads head_dim].

    Raises
    ------
    ValueError
        When heads does not divide dim and no head_dim is given, or kv_heads does not divide heads.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762; Ainslie et al., "GQA",
    2023, arXiv:2305.13245 (kv_heads); Su et al., "RoFormer", 2021, arXiv:2104.09864 (rotation);
    Raffel et al., "T5", 2020, arXiv:1910.10683 (position bias).

    Examples
    --------
    >>> attention = Attention(dim=8, heads=4, kv_heads=2)
    >>> x = np.ones((5, 8), np.float32)
    >>> out, backward = attention(x, np.array([0, 3, 5]))      # sequences of 3 and 2 tokens
    >>> out.shape, backward(out).shape
    ((5, 8), (5, 8))
    """

    #: Is shown the weights of each call [heads, tokens, tokens], which are made for it alone.
    observer: Callable[[Array], None] | None = None

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = True,
        out_bias: bool | None = None,
        is_causal: bool = True,
        scale: float | None = None,
        window: int | None = None,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        stream: RandomStream | None = None,
        std: float | None = None,
        out_std: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        kv_heads = heads if kv_heads is None else kv_heads
        if min(heads, kv_heads) < 1:
            raise ValueError(f"expected at least one head, got heads={heads}, kv_heads={kv_heads}")
        if head_dim is None and dim % heads:
            raise ValueError(f"heads must divide dim, got dim={dim}, heads={heads}")
        if heads % kv_heads:
            raise ValueError(f"kv_heads must divide heads, got heads={heads}, kv_heads={kv_heads}")
        head_dim = dim // heads if head_dim is None else head_dim
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        parts = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)
        self.qkv = PackedLinear(dim, parts, bias, std=std, rng=rng)
        out_bias = bias if out_bias is None else out_bias
        self.proj = ResidualLinear(
            heads * head_dim, dim, out_bias, dropout=dropout, stream=stream, std=out_std, rng=rng
        )
        self.attention_dropout = attention_dropout
        self.stream = self.proj.dropout.stream
        reach = -1 if window is None else window
        self.options: dict[str, Any] = {
            "is_causal": is_causal,
            "scale": scale,
            "window_size": (reach, 0 if is_causal else reach),
        }

    def __call__(
        self,
        x: Array,
        cu_seqlens: Array | None = None,
        *,
        rotation: Rotation | None = None,
        bias: Any = None,
        dbias: Array | None = None,
        cache: LayerCache | None = None,
        residual: Array | None = None,
        need_dx: bool = True,
        again: Callable[[], Array] | None = None,
    ) -> tuple[Array, once]:
        """Attend.

        Parameters
        ----------
        x : ndarray
            [tokens, dim]: sequences laid end to end.
        cu_seqlens : ndarray of int, optional
            [sequences + 1]: where each begins, and the total. Default: one sequence.
        rotation : Rotation, optional
            Angles by which queries and keys turn.
        bias : ndarray, optional
            [1, heads or 1, tokens_q, tokens_k] of the longest sequence: added to the scores. With
            a cache: what its `attend` takes.
        dbias : ndarray, optional
            The shape of `bias`; its gradient is added to it.
        cache : LayerCache, optional
            What came before the tokens. They are appended to it, and there is no way back.
        residual : ndarray, optional
            [tokens, dim], added to the result. Its cotangent is `dout` itself.
        need_dx : bool, default True
            Whether the input needs a gradient.
        again : callable, optional
            `again() -> x`, as for `Linear`.

        Returns
        -------
        out : ndarray
            [tokens, dim].
        backward : callable
            dout -> dx.

        Raises
        ------
        ValueError
            When x does not have two dimensions.
        """
        if x.ndim != 2:
            raise ValueError(f"x: expected [tokens, dim], got shape {x.shape}")
        if cache is not None:
            qkv, _ = self.qkv(x, need_dx=False)
            turned, query, key_value = self._split(qkv)
            _rotate(turned, rotation)
            mixed = cache.attend(query, key_value, bias=bias, **self.options)
            out, _ = self.proj(
                mixed.reshape(len(x), self.heads * self.head_dim), residual=residual, need_dx=False
            )
            return out, NO_BACKWARD
        if cu_seqlens is None:
            cu_seqlens = np.array([0, len(x)])
        qkv, qkv_backward = self.qkv(x, need_dx=need_dx, again=again)
        mixed, attend_backward = self._attend(qkv, cu_seqlens, rotation, bias, dbias)
        need_dmixed = qkv_backward.needed or dbias is not None
        out, proj_backward = self.proj(mixed, residual=residual, need_dx=need_dmixed)
        if not proj_backward.needed:
            return out, NOTHING
        return out, once(lambda dout: qkv_backward(attend_backward(proj_backward(dout))))

    def _attend(
        self,
        qkv: Array,
        cu_seqlens: Array,
        rotation: Rotation | None,
        bias: Array | None,
        dbias: Array | None,
    ) -> tuple[Array, once]:
        """Attention of packed qkv, turned in place -> [tokens, heads head_dim]; dout -> dqkv."""
        split, kv_heads = self._split, self.kv_heads
        turned, query, key_value = split(qkv)
        _rotate(turned, rotation)
        if self.observer is not None:
            weights = _weights(query, key_value[:, :kv_heads], bias, cu_seqlens, **self.options)
            self.observer(weights)
        out, attention_backward = attention(
            query,
            key_value[:, :kv_heads],
            key_value[:, kv_heads:],
            bias=bias,
            cu_seqlens_q=cu_seqlens,
            cu_seqlens_k=cu_seqlens,
            **self.options,
            **drawn_dropout(self, len(qkv), len(qkv)),
        )

        @once
        def backward(dout: Array) -> Array:
            dqkv = empty(qkv.shape, qkv.dtype)
            dturned, dquery, dkey_value = split(dqkv)
            attention_backward(
                dout.reshape(query.shape),
                dquery=dquery,
                dkey=dkey_value[:, :kv_heads],
                dvalue=dkey_value[:, kv_heads:],
                dbias=dbias,
            )
            if rotation is not None:
                ops.rotary_backward(dturned, *rotation, dx=dturned)
            return dqkv

        return out.reshape(len(qkv), self.heads * self.head_dim), backward

    def _split(self, qkv: Array) -> tuple[Array, Array, Array]:
        """Views of qkv as heads: queries and keys, which turn; queries; keys and values."""
        heads, kv_heads = self.heads, self.kv_heads
        by_head = qkv.reshape(len(qkv), heads + 2 * kv_heads, self.head_dim)
        return by_head[:, : heads + kv_heads], by_head[:, :heads], by_head[:, heads:]


def _weights(
    query: Array,
    key: Array,
    bias: Array | None,
    cu_seqlens: Array,
    *,
    is_causal: bool,
    scale: float | None,
    window_size: tuple[int, int],
) -> Array:
    """What each token of one sequence takes from each: [heads, tokens, tokens], rows add to 1."""
    if len(cu_seqlens) != 2:
        raise ValueError(f"attention is shown for one sequence, got {len(cu_seqlens) - 1}")
    tokens, heads, head_dim = query.shape
    by_head = np.repeat(key.transpose(1, 2, 0), heads // key.shape[1], axis=0)
    scores = query.transpose(1, 0, 2) @ by_head
    scores *= head_dim**-0.5 if scale is None else scale
    if bias is not None:
        scores += bias[0]
    behind = np.arange(tokens)[:, None] - np.arange(tokens)  # by how much the key comes before
    left, right = window_size
    hidden = (behind > left) & (left >= 0) | (behind < -right) & (right >= 0)
    scores[:, hidden | (is_causal & (behind < 0))] = -np.inf
    return ops.softmax(np.ascontiguousarray(scores))


class CrossAttention(Module):
    """Multi-head attention of a text's tokens to the states of another.

    Parameters
    ----------
    dim, heads, head_dim, bias, scale, attention_dropout, dropout, stream, std, out_std, rng
        As for `Attention`.

    Attributes
    ----------
    query : Linear
        [heads head_dim, dim].
    key_value : PackedLinear
        [2 heads head_dim, dim]: keys, then values, each head by head.
    proj : ResidualLinear
        [dim, heads head_dim].

    Examples
    --------
    >>> cross = CrossAttention(dim=8, heads=2)
    >>> x, states = np.ones((3, 8), np.float32), np.ones((5, 8), np.float32)
    >>> out, backward = cross(x, states, np.array([0, 1, 3]), np.array([0, 3, 5]))
    >>> dx, dstates = backward(out)
    >>> dx.shape, dstates.shape
    ((3, 8), (5, 8))
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        head_dim: int | None = None,
        bias: bool = True,
        scale: float | None = None,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        stream: RandomStream | None = None,
        std: float | None = None,
        out_std: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        if heads < 1:
            raise ValueError(f"expected at least one head, got heads={heads}")
        if head_dim is None and dim % heads:
            raise ValueError(f"heads must divide dim, got dim={dim}, heads={heads}")
        head_dim = dim // heads if head_dim is None else head_dim
        self.heads, self.head_dim = heads, head_dim
        inner = heads * head_dim
        self.query = Linear(dim, inner, bias, std=std, rng=rng)
        self.key_value = PackedLinear(dim, (inner, inner), bias, std=std, rng=rng)
        self.proj = ResidualLinear(
            inner, dim, bias, dropout=dropout, stream=stream, std=out_std, rng=rng
        )
        self.attention_dropout = attention_dropout
        self.stream = self.proj.dropout.stream
        self.options: dict[str, Any] = {"scale": scale}

    def __call__(
        self,
        x: Array,
        states: Array,
        cu_seqlens_q: Array,
        cu_seqlens_k: Array,
        *,
        residual: Array | None = None,
        need_dx: bool = True,
        need_dstates: bool = True,
        again: Callable[[], Array] | None = None,
    ) -> tuple[Array, once]:
        """Attend.

        Parameters
        ----------
        x : ndarray
            [tokens_q, dim]: sequences laid end to end.
        states : ndarray
            [tokens_k, dim]: what each of them looks at, likewise.
        cu_seqlens_q, cu_seqlens_k : ndarray of int
            [sequences + 1]: where the sequences of x and of states begin, and their totals.
        residual, need_dx, again
            As for `Attention`.
        need_dstates : bool, default True
            Whether the states need a gradient.

        Returns
        -------
        out : ndarray
            [tokens_q, dim].
        backward : callable
            dout -> (dx, dstates), each None where it is not needed.
        """
        query, query_backward = self.query(x, need_dx=need_dx, again=again)
        key_value, kv_backward = self.key_value(states, need_dx=need_dstates)
        by_head = self._split(query, key_value)
        mixed, attention_backward = attention(
            *by_head,
            cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k,
            **self.options,
            **drawn_dropout(self, len(x), len(states)),
        )
        out, proj_backward = self.proj(
            mixed.reshape(query.shape),
            residual=residual,
            need_dx=query_backward.needed or kv_backward.needed,
        )
        if not proj_backward.needed:
            return out, NEITHER
        split = self._split

        def attend_backward(dmixed: Array) -> tuple[Array, Array]:
            dquery = empty(query.shape, query.dtype)
            dkey_value = empty(key_value.shape, key_value.dtype)
            by_head, dkey, dvalue = split(dquery, dkey_value)
            attention_backward(
                dmixed.reshape(by_head.shape), dquery=by_head, dkey=dkey, dvalue=dvalue
            )
            return dquery, dkey_value

        attend = once(attend_backward, nothing=(None, None))

        def backward(dout: Array) -> tuple[Array | None, Array | None]:
            dquery, dkey_value = attend(proj_backward(dout))
            return query_backward(dquery), kv_backward(dkey_value)

        return out, once(backward, nothing=(None, None))

    def cached(
        self,
        x: Array,
        key_value: Array,
        cu_seqlens_q: Array,
        cu_seqlens_k: Array,
        *,
        residual: Array | None = None,
    ) -> Array:
        """As a call, with what `key_value` made of the states; there is no way back."""
        query, _ = self.query(x, need_dx=False)
        mixed: Any = ops.attention(
            *self._split(query, key_value),
            cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k,
            **self.options,
        )
        out, _ = self.proj(mixed.reshape(query.shape), residual=residual, need_dx=False)
        return out

    def _split(self, query: Array, key_value: Array) -> tuple[Array, Array, Array]:
        """Views as heads: query, key, value."""
        by_head = query.reshape(len(query), self.heads, self.head_dim)
        kv = key_value.reshape(len(key_value), 2, self.heads, self.head_dim)
        return by_head, kv[:, 0], kv[:, 1]


def attention(*qkv: Any, **options: Any) -> tuple[Array, once]:
    """`ops.attention` of query, key, value; backward: (dout, dquery=, dkey=, dvalue=, dbias=)."""
    out, lse = ops.attention(*qkv, return_lse=True, **options)
    return out, once(partial(_attention_backward, (*qkv, out, lse), options))


def _attention_backward(
    saved: tuple[Any, ...], options: dict[str, Any], dout: Array, **gradients: Any
) -> None:
    ops.attention_backward(dout, *saved, **{**options, **gradients})


def _rotate(x: Array, rotation: Rotation | None) -> None:
    """Turn x [tokens, heads, head_dim] in place."""
    if rotation is not None:
        ops.rotary(x, *rotation, out=x)


def drawn_dropout(layer: Any, tokens_q: int, tokens_k: int) -> dict[str, Any]:
    """What `ops.attention` and its backward take to drop the same attention weights."""
    p, stream = layer.attention_dropout, layer.stream
    if not (layer.training and p):
        return {}
    return {
        "dropout_p": p,
        "seed": stream.seed,
        "offset": stream.take(layer.heads * tokens_q * tokens_k),
    }
