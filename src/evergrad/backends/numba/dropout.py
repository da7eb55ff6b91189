"""Dropout from a counter-based generator: the mask is a pure function of (seed, offset, index)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import CHUNK, bounds, inline, kernel, pieces, store
from ._math import ZERO

Array = NDArray[Any]

_u32 = np.uint32
_u64 = np.uint64
_UINT64 = (1 << 64) - 1
_32 = _u64(32)


@inline
def mix64(z: int) -> int:
    """The output function of SplitMix64 (Steele, Lea & Flood 2014), modulo 2^64."""
    z = z + _u64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> _u64(30))) * _u64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> _u64(27))) * _u64(0x94D049BB133111EB)
    return z ^ (z >> _u64(31))


@inline
def mix32(x: int) -> int:
    """Wellons' lowbias32, a bijection of 32 bits; Numba widens, hence the casts."""
    x = _u32(_u32(x ^ (x >> _u32(16))) * _u32(0x7FEB352D))
    x = _u32(_u32(x ^ (x >> _u32(15))) * _u32(0x846CA68B))
    return _u32(x ^ (x >> _u32(16)))


@kernel
def _dropout_kernel(x: Array, limit: int, scale: float, seed: int, offset: int, out: Array) -> None:
    """Counters that share their high half share a key: a chunk is one run, or two."""
    for b in prange(pieces(x.size, CHUNK)):
        lo, hi = bounds(b, x.size, CHUNK)
        y = np.empty(hi - lo, np.float32)
        begin = 0
        while begin < hi - lo:
            counter = offset + _u64(lo + begin)
            key = mix64(seed ^ mix64(counter >> _32))
            key0, key1, low = _u32(key), _u32(key >> _32), _u32(counter)
            run = min(hi - lo - begin, (1 << 32) - np.int64(low))
            xs, ys = x[lo + begin : lo + begin + run], y[begin : begin + run]
            for i in range(run):
                h = mix32(_u32(_u32(low + _u32(i)) ^ key0))
                h = mix32(_u32(h + key1))
                ys[i] = xs[i] * scale if h >= limit else ZERO
            begin += run
        store(y, out[lo:hi])


def dropout(x: Array, p: float, seed: int, offset: int, out: Array | None) -> Array:
    """x / (1 - p) with probability 1 - p, else 0; any shape, elements counted in C order."""
    if out is None:
        out = np.empty_like(x)
    limit, scale = _u32(p * 2.0**32), np.float32(1 / (1 - p))
    seed, offset = _u64(seed & _UINT64), _u64(offset & _UINT64)
    _dropout_kernel(x.reshape(-1), limit, scale, seed, offset, out.reshape(-1))
    return out


def dropout_backward(dout: Array, p: float, seed: int, offset: int, dx: Array | None) -> Array:
    """The same mask and scale, drawn again, on dout."""
    return dropout(dout, p, seed, offset, dx)
