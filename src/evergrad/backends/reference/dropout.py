"""Dropout from a counter-based generator: the mask is a pure function of (seed, offset, index)."""

from __future__ import annotations

import numpy as np

from ._common import Array, emit, ieee

_UINT64 = (1 << 64) - 1


def _mix64(z: Array) -> Array:
    """The output function of SplitMix64 (Steele, Lea & Flood 2014), modulo 2^64."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _mix32(x: Array) -> Array:
    """Wellons' lowbias32, a bijection of 32 bits."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def kept(counter: Array, p: float, seed: int) -> Array:
    """Which of these elements stay: bool, the shape of `counter` (uint64).

    The high half of a counter picks a 64-bit key, its low half is hashed with that key: keep iff
    the hash >= floor(p 2^32).
    """
    low = counter.astype(np.uint32)  # modulo 2^32
    key = _mix64(np.uint64(seed & _UINT64) ^ _mix64(counter >> np.uint64(32)))
    h = _mix32(low ^ key.astype(np.uint32))
    h = _mix32(h + (key >> np.uint64(32)).astype(np.uint32))
    return h >= np.uint32(p * 2.0**32)


@ieee
def dropout(x: Array, p: float, seed: int, offset: int, out: Array | None) -> Array:
    """x / (1 - p) with probability 1 - p, else 0; any shape, elements counted in C order."""
    counter = np.arange(x.size, dtype=np.uint64) + np.uint64(offset & _UINT64)  # modulo 2^64
    keep = kept(counter, p, seed).reshape(x.shape)
    return emit(np.where(keep, x * (1 / (1 - p)), x.dtype.type(0)), out, x)


# A diagonal linear map that depends on (seed, offset, index) alone: its own transpose.
@ieee
def dropout_backward(dout: Array, p: float, seed: int, offset: int, dx: Array | None) -> Array:
    """The same mask and scale, drawn again, on dout."""
    return dropout(dout, p, seed, offset, dx)
