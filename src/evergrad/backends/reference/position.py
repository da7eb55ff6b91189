"""Buckets of relative positions."""

from __future__ import annotations

import numpy as np

from ._common import Array


def relative_position_buckets(
    limits: Array, tokens_q: int, tokens_k: int, bidirectional: bool
) -> Array:
    """[tokens_q, tokens_k]: how many of the rising `limits` do not exceed the distance.

    Query i stands at key position i + tokens_k - tokens_q. A key ahead of its query takes a bucket
    of a second set if bidirectional, else that of distance 0.
    """
    ahead = np.arange(tokens_k) - (np.arange(tokens_q)[:, None] + tokens_k - tokens_q)
    distance = np.abs(ahead) if bidirectional else np.maximum(-ahead, 0)
    bucket = np.searchsorted(limits, distance, side="right").astype(np.int64)
    return bucket + np.where(bidirectional & (ahead > 0), len(limits) + 1, 0)
