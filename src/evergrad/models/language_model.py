"""What language models share: the loss over a batch, and the stack of a decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from .. import nn
from ..nn import Array, once
from .cache import KVCache
from .prompting import Prompted
from .weights import Pretrained

__all__ = ["Batch", "CausalLM", "PreNormBlock", "TokenModel"]

#: Tokens that go through the layers together, behind a cache: about so many.
PIECE = 128


class Batch(Protocol):
    """Sequences laid end to end: sequence s is tokens cu_seqlens[s] to cu_seqlens[s + 1]."""

    @property
    def input_ids(self) -> Array: ...  # int [total]
    @property
    def target(self) -> Array | None: ...  # int [total], -100 where nothing is to be predicted
    @property
    def cu_seqlens(self) -> Array: ...  # int [sequences + 1]


class TokenModel(Pretrained):
    """A model that predicts tokens, one for each counted target of a batch."""

    head: nn.Head

    def _positions(self, cu_seqlens: Array) -> Array:
        """Each token's position in its own sequence, none beyond the context."""
        longest = np.diff(cu_seqlens).max(initial=0)
        if longest > self.config.context:
            raise ValueError(
                f"a sequence has {longest} tokens, more than the context of {self.config.context}"
            )
        return positions_of(cu_seqlens)

    def _states(self, batch: Any, target: Array) -> tuple[Array, Array, once]:
        """What the head sees, the targets beside it, and the way back from it."""
        raise NotImplementedError

    def loss(
        self, batch: Any, normalizer: float | None = None
    ) -> tuple[float, Callable[..., None]]:
        """Sum of the cross-entropies of the counted targets, divided by `normalizer`.

        Micro-batches that share one normalizer (the counted targets of all of them) add up to
        the loss and the gradients of the full batch.

        Parameters
        ----------
        batch : Batch
            Packed sequences; targets of -100 are not counted.
        normalizer : float, optional
            Above 0. Default: the number of counted targets, or 1 where there is none.

        Returns
        -------
        loss : float
            In nats.
        backward : callable
            (scale=1.0) -> None: adds the gradients of `scale * loss`. Runs once.

        Raises
        ------
        ValueError
            When the batch has no targets, or normalizer is not above 0 and finite.

        Examples
        --------
        >>> import math
        >>> from types import SimpleNamespace
        >>> from evergrad.models import GPT2, GPT2Config
        >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
        >>> batch = SimpleNamespace(
        ...     input_ids=np.array([1, 2, 3, 4, 5]),
        ...     target=np.array([2, 3, -100, 5, -100]),
        ...     cu_seqlens=np.array([0, 3, 5]),
        ... )
        >>> loss, backward = model.loss(batch)
        >>> backward()
        >>> bool(abs(loss - math.log(50)) < 0.1), bool(model.flat.grad.any())
        (True, True)
        """
        target, normalizer = _counted(batch, normalizer)
        states, target, states_backward = self._states(batch, target)
        total, head_backward = self.head.loss(states, target)

        def backward(scale: float = 1.0) -> None:
            states_backward(head_backward(scale / normalizer))

        return total / normalizer, once(backward)

    def loss_and_gradients(
        self, batch: Any, normalizer: float | None = None, scale: float = 1.0
    ) -> float:
        """`loss` and its `backward(scale)` in one call, for a training step.

        That the gradients are wanted is known before the logits are made, so these become their
        own gradients at once, block by block, and need not be made a second time.

        Parameters
        ----------
        batch, normalizer
            As for `loss`.
        scale : float, default 1.0
            The gradients of `scale * loss` are added.

        Returns
        -------
        float
            The loss, in nats. Where it is not finite, neither are the gradients.

        Raises
        ------
        ValueError
            As `loss`.

        Examples
        --------
        >>> import math
        >>> from types import SimpleNamespace
        >>> from evergrad.models import GPT2, GPT2Config
        >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
        >>> batch = SimpleNamespace(
        ...     input_ids=np.array([1, 2]), target=np.array([2, 3]), cu_seqlens=np.array([0, 2])
        ... )
        >>> loss = model.loss_and_gradients(batch)
        >>> bool(abs(loss - math.log(50)) < 0.1), bool(model.flat.grad.any())
        (True, True)
        """
        target, normalizer = _counted(batch, normalizer)
        states, target, states_backward = self._states(batch, target)
        total, dstates = self.head.loss_and_dx(states, target, scale / normalizer)
        states_backward(dstates)
        return total / normalizer


class PreNormBlock(nn.Module):
    """One layer: attention, then MLP, each on a normalised copy of the residual stream."""

    def __init__(
        self,
        norm_1: nn.LayerNorm | nn.RMSNorm,
        attention: nn.Attention,
        norm_2: nn.LayerNorm | nn.RMSNorm,
        mlp: nn.MLP | nn.GatedMLP,
    ) -> None:
        self.norm_1, self.attention = norm_1, attention
        self.norm_2, self.mlp = norm_2, mlp

    def __call__(
        self, x: Array, cu_seqlens: Array, *, need_dx: bool = True, **options: Any
    ) -> tuple[Array, once]:
        """Apply to x [tokens, dim]; `options` are for the attention. Backward: dout -> dx."""
        h, norm_1_backward = self.norm_1(x, need_dx=need_dx)
        x, attention_backward = self.attention(
            h,
            cu_seqlens,
            residual=x,
            need_dx=norm_1_backward.needed,
            again=norm_1_backward.again,
            **options,
        )
        h, norm_2_backward = self.norm_2(x, need_dx=attention_backward.needed)
        x, mlp_backward = self.mlp(
            h, residual=x, need_dx=norm_2_backward.needed, again=norm_2_backward.again
        )
        if not mlp_backward.needed:
            return x, nn.NOTHING

        def backward(dout: Array) -> Any:
            dx = norm_2_backward(mlp_backward(dout), dresidual=dout)
            return norm_1_backward(attention_backward(dx), dresidual=dx)

        return x, once(backward)


class CausalLM(Prompted, TokenModel):
    """A decoder: embedded tokens, blocks, a norm, and a head that scores the next token."""

    blocks: Sequence[PreNormBlock]
    norm: nn.LayerNorm | nn.RMSNorm
    _together: nn.CachedBlocks | None = None

    def _embed(self, input_ids: Array, positions: Array) -> tuple[Array, once, bool]:
        """Vectors of tokens, the way back, and whether any of it learns."""
        raise NotImplementedError

    def _rotation(self, positions: Array) -> nn.Rotation | None:
        """Angles by which the blocks turn queries and keys."""
        return None

    def __call__(
        self,
        input_ids: Array,
        cu_seqlens: Array | None = None,
        *,
        cache: KVCache | None = None,
    ) -> tuple[Array, once]:
        """Run the blocks: everything but the output projection.

        Parameters
        ----------
        input_ids : ndarray of int
            [total]: sequences laid end to end.
        cu_seqlens : ndarray of int, optional
            [sequences + 1]: where each begins, and the total. Default: one sequence.
        cache : KVCache, optional
            What each sequence began with; it grows by `input_ids`. There is no way back.

        Returns
        -------
        hidden : ndarray
            [total, dim].
        backward : callable
            dhidden -> None.

        Raises
        ------
        ValueError
            When a sequence is longer than the context, or than the cache's capacity.
        """
        return self._run(input_ids, cu_seqlens, cache, learn=cache is None)

    def _run(
        self, input_ids: Array, cu_seqlens: Array | None, cache: KVCache | None, learn: bool
    ) -> tuple[Array, once]:
        """`__call__`; without `learn` nothing is kept beyond a block."""
        if cu_seqlens is None:
            cu_seqlens = np.array([0, len(input_ids)])
        if cache is not None:
            return self._behind(cache, input_ids, cu_seqlens), nn.NO_BACKWARD
        positions = self._positions(cu_seqlens)
        x, embedding_backward, embedding_learns = self._embed(input_ids, positions)
        rotation = self._rotation(positions)

        # The way back ends at the lowest part that learns; what lies below keeps nothing.
        backwards: list[once] = []
        need_dx = learn and embedding_learns
        for block in self.blocks:
            x, block_backward = block(x, cu_seqlens, need_dx=need_dx, rotation=rotation)
            need_dx = learn and block_backward.needed
            if need_dx:
                backwards.append(block_backward)
        x, norm_backward = self.norm(x, need_dx=need_dx)

        def backward(dx: Array) -> None:
            dx = norm_backward(dx)
            for block_backward in reversed(backwards):
                dx = block_backward(dx)
            embedding_backward(dx)

        return x, once(backward)

    def _behind(
        self, cache: KVCache, input_ids: Array, cu_seqlens: Array, last_only: bool = False
    ) -> Array:
        """Hidden states of tokens that follow what the cache holds, which grows by them.

        Within a layer a token is many times wider than what the layer takes and gives, so long
        prompts go through the layers a piece at a time. With `last_only` only the last token of
        each sequence comes out; none of them is empty.
        """
        pieces = (len(input_ids) + PIECE // 2) // PIECE
        if pieces <= 1:
            return self._append(cache, input_ids, cu_seqlens, last_only)
        cache.begin(cu_seqlens)  # complains before anything is appended
        before = cache.lengths
        parts, owners = [], []
        try:
            for i in range(pieces):
                # Nearly equal: a few rows would be multiplied in another way, to other bits.
                first, last = (len(input_ids) * end // pieces for end in (i, i + 1))
                bounds = np.clip(cu_seqlens, first, last) - first
                parts.append(self._append(cache, input_ids[first:last], bounds, last_only))
                owners.append(np.flatnonzero(np.diff(bounds)))
        except BaseException:
            cache.lengths = before
            raise
        hidden = np.concatenate(parts)
        if not last_only:
            return hidden
        # A sequence in several pieces has a row of each: the last one counts.
        rows = np.empty(len(cu_seqlens) - 1, np.int64)
        rows[np.concatenate(owners)] = np.arange(len(hidden))
        return hidden[rows]

    def _append(
        self, cache: KVCache, input_ids: Array, cu_seqlens: Array, last_only: bool = False
    ) -> Array:
        positions = cache.begin(cu_seqlens)
        x, _, _ = self._embed(input_ids, positions)
        rotation = self._rotation(positions)
        if self._together is None or self._together.blocks is not self.blocks:
            self._together = nn.CachedBlocks(self.blocks, PreNormBlock)
        if self._together.ready():
            spans = [
                (slots.start, slots.stop - slots.start, tokens.start, start, end - start)
                for slots, tokens, start, end in cache.spans
            ]
            memory = cache.memory[: len(self.blocks)]
            x = self._together.run(x, memory, spans, rotation, last_only)
        else:
            for layer, block in enumerate(self.blocks):
                x, _ = block(x, cu_seqlens, need_dx=False, rotation=rotation, cache=cache[layer])
            if last_only:
                x = x[cu_seqlens[1:][np.diff(cu_seqlens) > 0] - 1]
        cache.end()
        x, _ = self.norm(x, need_dx=False)
        return x

    def _states(self, batch: Batch, target: Array) -> tuple[Array, Array, once]:
        hidden, backward = self(batch.input_ids, batch.cu_seqlens)
        return hidden, target, backward

    def logits(
        self,
        input_ids: Array,
        cu_seqlens: Array | None = None,
        *,
        rows: Array | None = None,
        cache: KVCache | None = None,
    ) -> Array:
        """Score every next token.

        Parameters
        ----------
        input_ids, cu_seqlens, cache
            As for `__call__`.
        rows : ndarray of int, optional
            The positions whose logits are wanted; default: all.

        Returns
        -------
        ndarray
            [total, vocab_size], or [len(rows), vocab_size].

        Raises
        ------
        IndexError
            When there is no such row. Nothing has been read then.

        Examples
        --------
        >>> from evergrad.models import GPT2, GPT2Config
        >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
        >>> two_texts, cu_seqlens = np.array([1, 2, 3, 4, 5]), np.array([0, 3, 5])
        >>> model.logits(two_texts, cu_seqlens, rows=cu_seqlens[1:] - 1).shape
        (2, 50)
        """
        if cu_seqlens is None:
            cu_seqlens = np.array([0, len(input_ids)])
        check_rows(rows, len(input_ids))
        if cache is not None and _are_last(rows, cu_seqlens):
            hidden = self._behind(cache, input_ids, cu_seqlens, last_only=True)
        else:
            hidden, _ = self._run(input_ids, cu_seqlens, cache, learn=False)
            hidden = hidden if rows is None else hidden[rows]
        out, _ = self.head(hidden, need_dx=False)
        return out


def check_rows(rows: Array | None, total: int) -> None:
    """Refuse rows beyond the tokens before a cache takes these."""
    if rows is not None and len(rows) and not -total <= np.min(rows) <= np.max(rows) < total:
        raise IndexError(f"rows must lie in [0, {total}), got {np.asarray(rows)}")


def positions_of(cu_seqlens: Array) -> Array:
    """Each token's position in its own sequence: [0, 1, 2, 0, 1] for cu_seqlens [0, 3, 5]."""
    positions: Array = np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))
    return positions


def _are_last(rows: Array | None, cu_seqlens: Array) -> bool:
    """Whether these are the last tokens of all sequences, none empty, and some have others."""
    if rows is None or len(rows) == cu_seqlens[-1]:
        return False
    if not np.array_equal(rows, cu_seqlens[1:] - 1):
        return False
    return bool((cu_seqlens[1:] > cu_seqlens[:-1]).all())


def _counted(batch: Any, normalizer: float | None) -> tuple[Array, float]:
    """The targets, and what the sum of their losses is divided by."""
    if batch.target is None:
        raise ValueError("loss needs targets, got a batch with target None")
    if normalizer is None:
        normalizer = max(int(np.count_nonzero(batch.target != -100)), 1)
    elif not 0 < normalizer < math.inf:
        raise ValueError(f"normalizer: expected a finite number above 0, got {normalizer}")
    return batch.target, normalizer
