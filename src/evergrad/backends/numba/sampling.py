"""Drawing a token from each row of logits, without sorting the row.

The tokens that may be drawn are a beginning of the row sorted by likelihood. Logits are counted
into bins by their distance from the largest, each bin with its mass; only a bin that a boundary
falls into is sorted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import inline, kernel
from ._math import ONE, ZERO, exp
from .dropout import mix64

Array = NDArray[Any]

_u64 = np.uint64
_UINT64 = (1 << 64) - 1
_BINS = 1024
_PER_UNIT = np.float32(32)  # of (max - z) / temperature: the last bin holds all beyond 32


@inline
def _bin(z: float, peak: float, scale: float) -> int:
    place = (peak - z) * scale
    return 0 if z == peak else (int(place) if place < _BINS - 1 else _BINS - 1)


@inline
def _sorted(row: Array, weight: Array, peak: float, scale: float, wanted: int) -> Array:
    """The tokens of one bin, likeliest first."""
    count = 0
    for j in range(row.size):
        count += weight[j] > ZERO and _bin(row[j], peak, scale) == wanted
    tokens, keys = np.empty(count, np.int64), np.empty(count, np.float32)
    count = 0
    for j in range(row.size):
        if weight[j] > ZERO and _bin(row[j], peak, scale) == wanted:
            tokens[count], keys[count] = j, -row[j]
            count += 1
    return tokens[np.argsort(keys, kind="mergesort")]


@inline
def _reach(
    row: Array, weight: Array, peak: float, scale: float, counts: Array, masses: Array,
    last: int, within: int, target: float, beyond: bool,
) -> tuple[int, int, float, int]:  # fmt: skip
    """The shortest beginning whose mass is (more than) the target: bin, tokens of it, mass, end."""
    mass, b = 0.0, 0
    while b < last:
        after = mass + masses[b]
        if after > target or (after == target and not beyond):
            break
        mass = after
        b += 1
    limit = within if b == last else counts[b]
    tokens = _sorted(row, weight, peak, scale, b)
    i = 0
    while i < limit:
        mass += np.float64(weight[tokens[i]])
        i += 1
        if mass > target or (mass == target and not beyond):
            break
    return b, i, mass, tokens[i - 1]


@kernel
def _sample_kernel(
    logits: Array, inverse: float, top_k: int, top_p: float, min_p: float, seed: int, offset: int,
    out: Array,
) -> None:  # fmt: skip
    rows, n = logits.shape
    scale = _PER_UNIT * inverse
    for r in prange(rows):
        row = logits[r]
        out[r] = -1
        peak, spoiled = np.float32(-np.inf), False
        for j in range(n):
            spoiled = spoiled or np.isnan(row[j])
            peak = max(peak, row[j])
        if spoiled or peak == -np.inf:
            continue
        weight = np.empty(n, np.float32)
        counts, masses, last = np.zeros(_BINS, np.int64), np.zeros(_BINS, np.float64), 0
        for j in range(n):
            w = ONE if row[j] == peak else exp((row[j] - peak) * inverse)
            weight[j] = w if w >= min_p else ZERO
            if weight[j] > ZERO:
                b = _bin(row[j], peak, scale)
                counts[b] += 1
                masses[b] += np.float64(weight[j])
                last = max(last, b)
        mass, within = masses[: last + 1].sum(), counts[last]
        if 0 < top_k < counts.sum():
            left, last, mass = top_k, 0, 0.0
            while left >= counts[last]:
                left -= counts[last]
                mass += masses[last]
                last += 1
            within = left
            tokens = _sorted(row, weight, peak, scale, last)
            for i in range(within):
                mass += np.float64(weight[tokens[i]])
        if top_p < 1.0:
            last, within, mass, _ = _reach(
                row, weight, peak, scale, counts, masses, last, within, top_p * mass, False
            )
        bits = mix64(seed ^ mix64(offset + _u64(r)))
        u = np.float64(bits >> _u64(11)) * 2.0**-53
        _, _, _, token = _reach(
            row, weight, peak, scale, counts, masses, last, within, u * mass, True
        )
        out[r] = token


def sample(
    logits: Array,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    offset: int,
) -> Array:
    """A token for each row of logits [rows, n]; -1 where there is nothing to draw."""
    out = np.empty(len(logits), np.int64)
    _sample_kernel(
        logits, np.float32(1 / temperature), top_k, top_p, np.float32(min_p),
        _u64(seed & _UINT64), _u64(offset & _UINT64), out,
    )  # fmt: skip
    return out
