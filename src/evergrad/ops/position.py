"""Buckets of relative positions, as T5 biases its attention by them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..backends import active
from . import _check


@lru_cache(maxsize=16)
def _limits(buckets: int, max_distance: int) -> np.ndarray:
    """The smallest distance of each bucket but the first.

    Bucket exact + k begins where (distance / exact)^n >= (max_distance / exact)^k, with
    n = buckets - exact: a comparison of integers, so no logarithm has to be rounded.
    """
    exact = buckets // 2
    n = buckets - exact
    limits = list(range(1, exact + 1))
    for k in range(1, n):
        wanted = max_distance**k * exact ** (n - k)
        distance = round(exact * (max_distance / exact) ** (k / n))
        while distance**n >= wanted:
            distance -= 1
        while distance**n < wanted:
            distance += 1
        limits.append(distance)
    return np.array(limits, np.int64)


def relative_position_buckets(
    tokens_q: int,
    tokens_k: int,
    *,
    bidirectional: bool = True,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> np.ndarray:
    r"""Bucket of the distance from each query to each key (Raffel et al. 2020).

    Half of the buckets hold one distance each. The others grow with its logarithm up to
    ``max_distance``; the last holds what is beyond. Queries stand at the last ``tokens_q`` of the
    key positions, as causal attention aligns them.

    Parameters
    ----------
    tokens_q, tokens_k : int
    bidirectional : bool
        Half of the buckets are for keys behind the query, half for keys ahead of it (an encoder).
        Else keys ahead count as distance 0 (a decoder, whose mask hides them).
    num_buckets : int
        At least 2; at least 4 when bidirectional. The last of an odd number is then never used.
    max_distance : int
        More than the distances that have a bucket of their own.

    Returns
    -------
    ndarray
        int64, [tokens_q, tokens_k], in [0, num_buckets): rows of an embedding table, one column of
        which is the bias of a head.

    Raises
    ------
    TypeError, ValueError
        For arguments of the wrong type or out of range.

    Examples
    --------
    >>> from evergrad import ops
    >>> ops.relative_position_buckets(1, 6, bidirectional=False, num_buckets=4, max_distance=8)
    array([[3, 3, 2, 2, 1, 0]])
    """
    tokens_q = _check.integer("tokens_q", tokens_q, 0, 2**31 - 1)
    tokens_k = _check.integer("tokens_k", tokens_k, 0, 2**31 - 1)
    num_buckets = _check.integer("num_buckets", num_buckets, 4 if bidirectional else 2, 4096)
    buckets = num_buckets // 2 if bidirectional else num_buckets
    max_distance = _check.integer("max_distance", max_distance, buckets // 2 + 1, 2**31 - 1)
    limits = _limits(buckets, max_distance)
    return active.relative_position_buckets(limits, tokens_q, tokens_k, bool(bidirectional))
