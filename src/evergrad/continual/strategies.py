"""How new text reaches the model, and what of the old text goes with it.

A strategy makes the sampler that ``train.fit`` draws its batches from, out of the new domain and
the retained ones. Everything else about adaptation is the same whatever the strategy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from evergrad import text, train

__all__ = ["Naive", "Replay", "Reservoir", "Strategy"]

T = TypeVar("T")


class Strategy(Protocol):
    """Mixes new and retained text into batches."""

    name: str

    def sampler(
        self, new: train.EncodedDomain, retained: Sequence[train.EncodedDomain]
    ) -> train.Sampler:
        """A function ``(rng, batch_size, window) -> Batch``, all of whose chance comes from rng."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Name and settings, for the report."""
        ...


class Naive:
    """New text alone: the baseline that shows what would be forgotten.

    Examples
    --------
    >>> Naive().to_dict()
    {'name': 'naive'}
    """

    name = "naive"

    def sampler(
        self, new: train.EncodedDomain, retained: Sequence[train.EncodedDomain]
    ) -> train.Sampler:
        """Windows of the new domain."""
        return train.window_sampler(new.train_ids)

    def to_dict(self) -> dict[str, Any]:
        """Name and settings, for the report."""
        return {"name": self.name}


class Reservoir(Generic[T]):
    """A uniform sample of bounded size from a stream of unknown length.

    Algorithm R (Vitter, "Random Sampling with a Reservoir", 1985): the first ``capacity`` items
    fill it; item ``n`` (from 1) then replaces a random slot with probability ``capacity / n``. At
    any time every item seen so far is in it with the same probability.

    Parameters
    ----------
    capacity : int
        Most items to hold, at least 1.
    seed : int
        Same seed and same stream give the same sample.

    Raises
    ------
    ValueError
        When ``capacity`` is below 1.

    Examples
    --------
    >>> reservoir = Reservoir[int](3, seed=0)
    >>> reservoir.extend(range(100))
    >>> reservoir.seen, len(reservoir.items), set(reservoir.items) <= set(range(100))
    (100, 3, True)
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, got {capacity}")
        self.capacity = capacity
        self.items: list[T] = []
        self.seen = 0
        self._rng = np.random.default_rng(seed)

    def extend(self, stream: Iterable[T]) -> None:
        """Let every item of the stream pass by."""
        for item in stream:
            self.seen += 1
            if len(self.items) < self.capacity:
                self.items.append(item)
            else:
                slot = int(self._rng.integers(self.seen))
                if slot < self.capacity:
                    self.items[slot] = item


class Replay:
    """A share of each batch comes from a reservoir of windows of the retained training text.

    Parameters
    ----------
    fraction : float
        Share of the sequences of a batch, in (0, 1). Where it does not come out whole, the batches
        alternate at random so that it holds on average.
    capacity : int
        Most windows to retain: the memory that remembering costs.
    seed : int
        Of the reservoir.

    Raises
    ------
    ValueError
        When a setting is out of range, or there is nothing to replay.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad.train import EncodedDomain
    >>> nothing = np.empty(0, np.int64)
    >>> old = EncodedDomain("old", np.zeros(1000, np.int64), nothing, 0)
    >>> new = EncodedDomain("new", np.ones(1000, np.int64), nothing, 0)
    >>> sample = Replay(fraction=0.25, capacity=50).sampler(new, [old])
    >>> batch = sample(np.random.default_rng(0), 16, 10)
    >>> len(batch), float((batch.input_ids == 0).mean())
    (16, 0.25)
    """

    name = "replay"

    def __init__(self, fraction: float = 0.25, capacity: int = 4096, seed: int = 0) -> None:
        if not 0 < fraction < 1:
            raise ValueError(f"fraction: expected a number in (0, 1), got {fraction}")
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, got {capacity}")
        self.fraction = fraction
        self.capacity = capacity
        self.seed = seed

    def sampler(
        self, new: train.EncodedDomain, retained: Sequence[train.EncodedDomain]
    ) -> train.Sampler:
        """Windows of the new domain, and some of the reservoir in every batch."""
        streams = [domain.train_ids for domain in retained if domain.train_ids.size > 1]
        if not streams:
            raise ValueError("retained: replay needs at least one domain with training text")
        fresh = train.window_sampler(new.train_ids)
        reservoirs: dict[int, list[np.ndarray]] = {}

        def sample(rng: np.random.Generator, batch_size: int, window: int) -> text.Batch:
            if window not in reservoirs:
                reservoirs[window] = self._fill(streams, window)
            old = reservoirs[window]
            # Rounded up or down at random, with the mean exact.
            replayed = int(self.fraction * batch_size + rng.random())
            batch = fresh(rng, batch_size - replayed, window)
            again = text.pack([old[i] for i in rng.integers(len(old), size=replayed)])
            return _joined(batch, again)

        return sample

    def _fill(self, streams: Sequence[np.ndarray], window: int) -> list[np.ndarray]:
        reservoir: Reservoir[np.ndarray] = Reservoir(self.capacity, self.seed)
        for ids in streams:
            whole = [part for part in text.windows(ids, window) if part.size == window + 1]
            reservoir.extend(whole or [ids])
        # Copies: views would keep the whole stream in memory.
        return [part.copy() for part in reservoir.items]

    def to_dict(self) -> dict[str, Any]:
        """Name and settings, for the report."""
        return {"name": self.name, "fraction": self.fraction, "capacity": self.capacity}


def _joined(first: text.Batch, second: text.Batch) -> text.Batch:
    return text.Batch(
        np.concatenate([first.input_ids, second.input_ids]),
        np.concatenate([first.target, second.target]),
        np.concatenate([first.cu_seqlens, second.cu_seqlens[1:] + first.cu_seqlens[-1]]),
    )
