"""Causal self-attention over packed sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import ops
from ._backward import once
from ._buffer import Array, empty
from .linear import Linear, ResidualLinear
from .module import Module
from .random import RandomStream

__all__ = ["CausalSelfAttention"]


class CausalSelfAttention(Module):
    """Multi-head attention in which each token sees itself and what came before it.

    Query, key and value come from one packed product and stay where it wrote them: attention
    reads and writes strided views, nothing is transposed or copied.

    Parameters
    ----------
    dim : int
        Size of a token's vector.
    heads : int
        Number of heads, a divisor of dim.
    dropout : float, default 0.0
        Of the output, in training mode.
    stream : RandomStream, optional
        Where the dropout masks come from.
    std, out_std : float, optional
        Standard deviations of the initial weights of `qkv` and of `proj`.
    rng : numpy.random.Generator, optional
        Source of the initial weights.

    Attributes
    ----------
    qkv : Linear
        [3 dim, dim]: the rows of the queries, then keys, then values, each head by head.
    proj : ResidualLinear
        [dim, dim].

    Raises
    ------
    ValueError
        When heads does not divide dim.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.

    Examples
    --------
    >>> attention = CausalSelfAttention(dim=8, heads=2)
    >>> x = np.ones((5, 8), np.float32)
    >>> out, backward = attention(x, np.array([0, 3, 5]))      # sequences of 3 and 2 tokens
    >>> out.shape, backward(out).shape
    ((5, 8), (5, 8))
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        dropout: float = 0.0,
        stream: RandomStream | None = None,
        std: float | None = None,
        out_std: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        if dim % heads:
            raise ValueError(f"heads must divide dim, got dim={dim}, heads={heads}")
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim, std=std, rng=rng)
        self.proj = ResidualLinear(dim, dim, dropout=dropout, stream=stream, std=out_std, rng=rng)

    def __call__(
        self,
        x: Array,
        cu_seqlens: Array | None = None,
        *,
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
        if cu_seqlens is None:
            cu_seqlens = np.array([0, len(x)])
        need_dqkv = need_dx or self.qkv.trainable
        qkv, qkv_backward = self.qkv(x, need_dx=need_dx, again=again)
        mixed, attend_backward = _attend(qkv, self.heads, cu_seqlens)
        out, proj_backward = self.proj(mixed, residual=residual, need_dx=need_dqkv)
        return out, once(lambda dout: qkv_backward(attend_backward(proj_backward(dout))))


def _attend(qkv: Array, heads: int, cu_seqlens: Array) -> tuple[Array, once]:
    """Causal attention of packed qkv [tokens, 3 dim] -> [tokens, dim]; backward -> dqkv."""
    query, key, value = _split(qkv, heads)
    out, lse = ops.attention(
        query,
        key,
        value,
        is_causal=True,
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_k=cu_seqlens,
        return_lse=True,
    )

    @once
    def backward(dout: Array) -> Array:
        dqkv = empty(qkv.shape, qkv.dtype)
        dquery, dkey, dvalue = _split(dqkv, heads)
        ops.attention_backward(
            dout.reshape(out.shape),
            query,
            key,
            value,
            out,
            lse,
            is_causal=True,
            scale=None,
            cu_seqlens_q=cu_seqlens,
            cu_seqlens_k=cu_seqlens,
            dquery=dquery,
            dkey=dkey,
            dvalue=dvalue,
        )
        return dqkv

    return out.reshape(len(qkv), qkv.shape[1] // 3), backward


def _split(qkv: Array, heads: int) -> tuple[Array, Array, Array]:
    """View [tokens, 3 dim] as query, key, value, each [tokens, heads, head_dim]."""
    tokens, width = qkv.shape
    views = qkv.reshape(tokens, 3, heads, width // (3 * heads))
    return views[:, 0], views[:, 1], views[:, 2]
