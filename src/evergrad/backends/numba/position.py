"""Buckets of relative positions: a matrix whose diagonals are constant."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def relative_position_buckets(
    limits: Array, tokens_q: int, tokens_k: int, bidirectional: bool
) -> Array:
    """[tokens_q, tokens_k]: each row a window of one table of all diagonals."""
    if tokens_q == 0 or tokens_k == 0:
        return np.empty((tokens_q, tokens_k), np.int64)
    ahead = np.arange(1 - tokens_k, tokens_q)
    distance = np.abs(ahead) if bidirectional else np.maximum(-ahead, 0)
    table = np.searchsorted(limits, distance, side="right")
    table[(ahead > 0) & bidirectional] += len(limits) + 1
    windows = np.lib.stride_tricks.sliding_window_view(table, tokens_k)
    return np.ascontiguousarray(windows[::-1], np.int64)
