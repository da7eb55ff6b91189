"""Packed batches: sequences of different length lie end to end, nothing is padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Targets with this value are not counted, as in torch.
IGNORE_INDEX = -100


@dataclass(frozen=True)
class Batch:
    """Token sequences end to end, each with the token that follows it.

    Parameters
    ----------
    input_ids : ndarray, int64, [total]
        The sequences, one behind the other.
    target : ndarray, int64, [total], or None
        What to predict at each position; `IGNORE_INDEX` where nothing is.
    cu_seqlens : ndarray, int64, [sequences + 1]
        Sequence ``i`` is ``input_ids[cu_seqlens[i]:cu_seqlens[i + 1]]``.

    Raises
    ------
    TypeError
        If an array is not int64.
    ValueError
        If shapes do not match, or `cu_seqlens` does not rise from 0 to total.

    Examples
    --------
    >>> import numpy as np
    >>> batch = pack([np.array([1, 2, 3]), np.array([4, 5])])
    >>> batch.input_ids, batch.target, batch.cu_seqlens
    (array([1, 2, 4]), array([2, 3, 5]), array([0, 2, 3]))
    >>> len(batch), batch.counted
    (2, 3)
    """

    input_ids: np.ndarray
    target: np.ndarray | Any
    cu_seqlens: np.ndarray

    def __post_init__(self) -> None:
        for name in ("input_ids", "target", "cu_seqlens"):
            value = getattr(self, name)
            if value is None and name == "target":
                continue
            if not isinstance(value, np.ndarray) or value.dtype != np.int64:
                kind = getattr(value, "dtype", type(value).__name__)
                raise TypeError(f"Batch: {name} must be an int64 array, got {kind}")
            if value.ndim != 1:
                raise ValueError(f"Batch: {name} must have one dimension, got shape {value.shape}")
        total, bounds = self.input_ids.size, self.cu_seqlens
        if self.target is not None and self.target.size != total:
            raise ValueError(f"Batch: target has {self.target.size} entries, input_ids {total}")
        if bounds.size == 0 or bounds[0] != 0 or bounds[-1] != total or (np.diff(bounds) < 0).any():
            raise ValueError(f"Batch: cu_seqlens must rise from 0 to {total}, got {bounds}")

    def __len__(self) -> int:
        """Number of sequences."""
        return self.cu_seqlens.size - 1

    @property
    def counted(self) -> int:
        """Number of targets that the loss counts."""
        return 0 if self.target is None else int(np.count_nonzero(self.target != IGNORE_INDEX))


def pack(sequences: Sequence[np.ndarray]) -> Batch:
    """Pack sequences so that each position predicts the next token of its own sequence.

    Parameters
    ----------
    sequences : sequence of ndarray, integer, each [length_i]
        Token ids; a sequence of n ids gives n - 1 positions. Those shorter than two give none.

    Returns
    -------
    Batch
        With ``sum(length_i - 1)`` positions; without sequences, an empty batch.

    Raises
    ------
    TypeError, ValueError
        If a sequence is not an integer array of one dimension.

    Examples
    --------
    >>> import numpy as np
    >>> pack([np.arange(4)]).target
    array([1, 2, 3])
    """
    for position, ids in enumerate(sequences):
        _check_ids(f"pack: sequences[{position}]", ids)
    kept = [ids for ids in sequences if ids.size > 1]
    cu_seqlens = np.zeros(len(kept) + 1, np.int64)
    np.cumsum([ids.size - 1 for ids in kept], out=cu_seqlens[1:])
    nothing = np.empty(0, np.int64)
    inputs = np.concatenate([nothing, *(ids[:-1] for ids in kept)], dtype=np.int64)
    target = np.concatenate([nothing, *(ids[1:] for ids in kept)], dtype=np.int64)
    return Batch(inputs, target, cu_seqlens)


def windows(ids: np.ndarray, window: int) -> list[np.ndarray]:
    """Cut a stream of tokens so that every token but the first is predicted exactly once.

    Neighbours share one token: the last target of a window is the first input of the next.

    Parameters
    ----------
    ids : ndarray, integer, [total]
        The stream.
    window : int
        Positions of a window (the last one may be shorter); it spans ``window + 1`` tokens.

    Returns
    -------
    list of ndarray
        Views of `ids`, for `pack`; none when `ids` has fewer than two tokens.

    Raises
    ------
    TypeError, ValueError
        If `ids` is not an integer array of one dimension, or `window` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> windows(np.arange(6), 2)
    [array([0, 1, 2]), array([2, 3, 4]), array([4, 5])]
    """
    _check_ids("windows: ids", ids)
    if window < 1:
        raise ValueError(f"windows: window must be at least 1, got {window}")
    return [ids[start : start + window + 1] for start in range(0, ids.size - 1, window)]


def _check_ids(name: str, ids: np.ndarray) -> None:
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu":
        kind = getattr(ids, "dtype", type(ids).__name__)
        raise TypeError(f"{name} must be an integer array, got {kind}")
    if ids.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {ids.shape}")
