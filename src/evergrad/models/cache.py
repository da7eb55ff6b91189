"""The keys and values of what a decoder has read, so that it need not read it again."""

from __future__ import annotations

import math
import mmap
import sys
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .. import ops
from ..nn import Array

__all__ = ["CrossCache", "KVCache"]


#: Python has the name since 3.13.
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
#: Memory of this process that counts only as it is written.
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE


class Cached(Protocol):
    """What the cache of a model depends on."""

    @property
    def context(self) -> int: ...
    @property
    def cache_shape(self) -> tuple[int, int, int]: ...  # layers, key/value heads, size of a head


class Span(NamedTuple):
    """Neighbouring slots that are equally long and get equally many tokens."""

    slots: slice
    tokens: slice  # of the call's tokens, laid end to end
    start: int  # length before
    end: int  # length after


class KVCache:
    """Keys and values of a batch of sequences, in every layer of a decoder.

    Each sequence has a slot. A call of the model with `cache=` appends the tokens it is given to
    the slots, sequence s of the call to slot s, and each token sees its slot up to itself.

    All memory is reserved at once; the system hands out its pages as they are written, so a cache
    costs what it holds, and grows without a copy. A copy (`copy.copy`, too) goes on by itself.

    Parameters
    ----------
    config : GPT2Config, LlamaConfig or T5Config
        Of the model.
    batch : int, default 1
        Number of sequences.
    capacity : int, optional
        Tokens that a slot can hold; default, and at most: the context.

    Attributes
    ----------
    lengths : ndarray of int64
        [batch]: tokens that each slot holds.
    capacity : int

    Raises
    ------
    ValueError
        When the batch or the capacity is out of range.

    Examples
    --------
    >>> from evergrad.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=2, heads=2, dim=8))
    >>> cache = KVCache(model.config, batch=2)
    >>> _ = model.logits(np.array([1, 2, 3, 4, 5]), np.array([0, 3, 5]), cache=cache)
    >>> model.logits(np.array([6, 7]), np.array([0, 1, 2]), cache=cache).shape
    (2, 50)
    >>> cache.lengths
    array([4, 3])
    """

    def __init__(self, config: Cached, batch: int = 1, capacity: int | None = None) -> None:
        capacity = config.context if capacity is None else capacity
        if batch < 0:
            raise ValueError(f"batch must be >= 0, got {batch}")
        if not 0 <= capacity <= config.context:
            raise ValueError(
                f"capacity must lie between 0 and the context of {config.context}, got {capacity}"
            )
        layers, self._kv_heads, head_dim = config.cache_shape
        self.capacity = capacity
        self.lengths = np.zeros(batch, np.int64)
        self.spans: list[Span] = []
        self._data = _reserved((layers, batch, 2 * self._kv_heads, capacity, head_dim))
        self._layers = self._views()

    def _views(self) -> list[Layer]:
        return [Layer(self.spans, data, self._kv_heads) for data in self._data]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy begins with: of the memory what was written, of the layers' views nothing."""
        written = self._data[:, :, :, : int(self.lengths.max(initial=0))]
        return {**self.__dict__, "_data": written, "_layers": [], "spans": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        written = self._data
        self._data = _reserved((*written.shape[:3], self.capacity, written.shape[4]))
        self._data[:, :, :, : written.shape[3]] = written
        self._layers = self._views()

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.lengths)

    def __getitem__(self, layer: int) -> Layer:
        """Return what a layer's attention takes as its `cache`."""
        return self._layers[layer]

    def reset(self) -> None:
        """Forget everything."""
        self.lengths = np.zeros_like(self.lengths)

    def truncate(self, lengths: npt.ArrayLike) -> None:
        """Forget what lies beyond so many tokens of each sequence.

        Parameters
        ----------
        lengths : int or array_like of int
            For all, or for each.

        Raises
        ------
        ValueError
            When one is negative, or more than there is.
        """
        wanted = np.broadcast_to(np.asarray(lengths, np.int64), self.lengths.shape)
        if (wanted < 0).any() or (wanted > self.lengths).any():
            raise ValueError(f"lengths must lie between 0 and {self.lengths}, got {wanted}")
        self.lengths = wanted.copy()

    def select(self, indices: npt.ArrayLike) -> None:
        """Let slot i continue what slot indices[i] holds: the step of a beam search.

        Parameters
        ----------
        indices : array_like of int
            [batch of now on]: more or fewer than there are, in any order, also twice.

        Raises
        ------
        IndexError
            When there is no such slot.

        Examples
        --------
        >>> from evergrad.models import GPT2Config
        >>> cache = KVCache(GPT2Config(vocab_size=50, layers=1, heads=2, dim=8), batch=2)
        >>> cache.select([1, 1, 0])
        >>> len(cache)
        3
        """
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"indices must lie in [0, {len(self)}), got {chosen}")
        lengths, old = self.lengths[chosen], self._data
        longest = int(lengths.max(initial=0))
        targets = np.flatnonzero(chosen != np.arange(len(chosen)))
        if len(chosen) > old.shape[1]:
            self._data = _reserved((len(old), len(chosen), *old.shape[2:]))
            self._layers = self._views()
            targets = np.arange(len(chosen))
        for data, source in zip(self._data, old, strict=True):
            # The right side is a copy, so slots may change places.
            data[targets, :, :longest] = source[chosen[targets], :, :longest]
        self.lengths = lengths

    def begin(self, cu_seqlens: Array) -> Array:
        """Prepare to append a sequence to each slot, in all layers; `end` makes it count.

        Parameters
        ----------
        cu_seqlens : ndarray of int
            [batch + 1]: where each of the new sequences begins, and the total.

        Returns
        -------
        ndarray of int64
            [total]: positions of the new tokens.

        Raises
        ------
        ValueError
            When there are more or fewer sequences than slots, or a slot would overflow.
        """
        bounds, starts = cu_seqlens.tolist(), self.lengths.tolist()
        if len(bounds) != len(starts) + 1:
            raise ValueError(
                f"cu_seqlens: expected a sequence for each of the cache's {len(starts)}, "
                f"got {len(bounds) - 1}"
            )
        ends = [s + b - a for s, a, b in zip(starts, bounds, bounds[1:], strict=False)]
        if ends and max(ends) > self.capacity:
            raise ValueError(
                f"a sequence has {max(ends)} tokens, more than the cache's capacity of "
                f"{self.capacity}"
            )
        spans: list[Span] = []
        first = 0
        for slot in range(1, len(starts) + 1):
            if slot < len(starts) and (starts[slot], ends[slot]) == (starts[first], ends[first]):
                continue
            slots, tokens = slice(first, slot), slice(bounds[first], bounds[slot])
            spans.append(Span(slots, tokens, starts[first], ends[first]))
            first = slot
        self.spans[:] = spans
        each = [np.arange(start, end) for start, end in zip(starts, ends, strict=True)]
        return np.concatenate(each) if each else np.zeros(0, np.int64)

    @property
    def memory(self) -> Array:
        """All of it: [layers, slots, 2 kv_heads, capacity, head_dim], keys, then values.

        A head has its tokens one after the other: so attention reads them, and the hardware sees
        them coming. With all heads of a token side by side, a thousand tokens took twice the time.
        """
        return self._data

    def end(self) -> None:
        """Count what all layers have appended since `begin`."""
        lengths = self.lengths.copy()
        for slots, _, _, end in self.spans:
            lengths[slots] = end
        self.lengths = lengths


def _reserved(shape: tuple[int, ...]) -> Array:
    """Memory whose pages are handed out as they are written.

    NumPy asks for huge pages, or the system gives them to all: then each head of each layer would
    begin with one or two of them, 2 MB each.
    """
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, np.float32)
    memory = mmap.mmap(-1, 4 * count, flags=PRIVATE)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel that has none
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32, count).reshape(shape)


class Layer:
    """The part of a cache that one layer's attention writes and reads."""

    __slots__ = ("_data", "_key", "_spans", "_value")

    def __init__(self, spans: list[Span], data: Array, kv_heads: int) -> None:
        self._spans = spans  # the cache's own list; the cache itself would make a cycle
        # [slots, capacity, 2 kv_heads, head_dim], whatever lies beside what: keys, then values
        self._data = data.swapaxes(1, 2)
        self._key, self._value = self._data[:, :, :kv_heads], self._data[:, :, kv_heads:]

    def attend(
        self,
        query: Array,
        key_value: Array,
        *,
        bias: list[Array] | None = None,
        **options: Any,
    ) -> Array:
        """Append key_value [tokens, 2 kv_heads, head_dim]; attention of query to all there is.

        `bias` has an array for each of the cache's spans, `options` are for `ops.attention`.
        """
        spans = self._spans
        if len(spans) == 1:
            return self._attend(spans[0], query, key_value, bias and bias[0], None, options)
        out: Array = ops.empty(query.shape)
        for i, span in enumerate(spans):
            tokens = span.tokens
            self._attend(
                span, query[tokens], key_value[tokens], bias and bias[i], out[tokens], options
            )
        return out

    def _attend(
        self,
        span: Span,
        query: Array,
        key_value: Array,
        bias: Any,
        out: Array | None,
        options: dict[str, Any],
    ) -> Array:
        slots, _, start, end = span
        batch = slots.stop - slots.start, end - start
        self._data[slots, start:end] = key_value.reshape(*batch, *key_value.shape[1:])
        mixed: Any = ops.attention(
            query.reshape(*batch, *query.shape[1:]),
            self._key[slots, :end],
            self._value[slots, :end],
            bias=bias,
            out=None if out is None else out.reshape(*batch, *out.shape[1:]),
            **options,
        )
        return mixed


class CrossCache(KVCache):
    """A `KVCache`, and the keys and values of the texts that a decoder looks at.

    Slots that look at the same text share it, however many they are.

    Parameters
    ----------
    config : T5Config
        Of the model.
    cross : list of ndarray
        For each layer [total, 2 heads head_dim]: keys and values of texts laid end to end.
    cu_seqlens_k : ndarray of int
        [texts + 1]: where each begins, and the total. There is a slot for each.
    capacity : int, optional
        Tokens that a slot can hold.

    Attributes
    ----------
    cu_seqlens_q : ndarray of int64
        [texts + 1]: of the tokens that are being appended, those that look at each text.
    """

    def __init__(
        self,
        config: Cached,
        cross: list[Array],
        cu_seqlens_k: Array,
        capacity: int | None = None,
    ) -> None:
        texts = len(cu_seqlens_k) - 1
        super().__init__(config, texts, capacity)
        self.cross, self.cu_seqlens_k = cross, cu_seqlens_k
        self.cu_seqlens_q = np.zeros(texts + 1, np.int64)
        self._text = np.arange(texts)  # that each slot looks at; never falls

    def select(self, indices: npt.ArrayLike) -> None:
        """As `KVCache.select`; what was read is copied only where texts change places."""
        super().select(indices)
        text = self._text[np.asarray(indices, np.int64).reshape(-1)]
        if (text[1:] < text[:-1]).any():
            bounds = self.cu_seqlens_k
            rows = [np.arange(bounds[i], bounds[i + 1]) for i in text]
            self.cross = [key_value[np.concatenate(rows)] for key_value in self.cross]
            self.cu_seqlens_k = np.concatenate([[0], np.cumsum([len(each) for each in rows])])
            text = np.arange(len(text))
        self._text = text

    def begin(self, cu_seqlens: Array) -> Array:
        """As `KVCache.begin`."""
        positions = super().begin(cu_seqlens)
        first_slot = np.searchsorted(self._text, np.arange(len(self.cu_seqlens_k)))
        self.cu_seqlens_q = np.asarray(cu_seqlens, np.int64)[first_slot]
        return positions
