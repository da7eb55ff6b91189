"""Rotary position embedding (Su et al. 2021)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from ._kernel import kernel, memory, store

Array = NDArray[Any]


@kernel
def _rotary_kernel(
    x: Array,
    x_strides: Array,
    cos: Array,
    sin: Array,
    interleaved: bool,
    positions: Array,
    shape: tuple[int, int, int, int],
    out: Array,
    out_strides: Array,
) -> None:
    batch, tokens, heads, head_dim = shape
    d = cos.shape[1]
    for b in prange(batch * tokens):
        y = np.empty(head_dim, np.float32)
        c, s = cos[positions[b]], sin[positions[b]]
        start = (b // tokens) * x_strides[0] + (b % tokens) * x_strides[1]
        end = (b // tokens) * out_strides[0] + (b % tokens) * out_strides[1]
        for h in range(heads):
            v = x[start + h * x_strides[2] : start + h * x_strides[2] + head_dim]
            if interleaved:
                for j in range(d):
                    y[2 * j] = v[2 * j] * c[j] - v[2 * j + 1] * s[j]
                    y[2 * j + 1] = v[2 * j + 1] * c[j] + v[2 * j] * s[j]
            else:
                low, high = v[:d], v[d : 2 * d]
                for j in range(d):
                    y[j] = low[j] * c[j] - high[j] * s[j]
                for j in range(d):
                    y[d + j] = high[j] * c[j] + low[j] * s[j]
            for j in range(2 * d, head_dim):
                y[j] = v[j]
            store(y, out[end + h * out_strides[2] : end + h * out_strides[2] + head_dim])


def rotary(
    x: Array,
    cos: Array,
    sin: Array,
    interleaved: bool,
    positions: Array | None,
    inverse: bool,
    out: Array | None,
) -> Array:
    """(a, b) -> (a cos - b sin, b cos + a sin) for pairs of the first 2 d numbers of each head.

    x [..., tokens, heads, head_dim], cos, sin [length, d], positions [..., tokens] or None for
    0, 1, ...; the pairs are (j, j + d), or (2 j, 2 j + 1) when `interleaved`.
    """
    if out is None:
        out = np.empty(x.shape, np.float32)
    x4, out4 = (a if a.ndim == 4 else a[None] for a in (x, out))
    batch, tokens = x4.shape[:2]
    if positions is None:
        positions = np.tile(np.arange(tokens), batch)
    _rotary_kernel(
        memory(x4), np.array(x4.strides) // 4, cos, -sin if inverse else sin, interleaved,
        positions.reshape(-1), x4.shape, memory(out4), np.array(out4.strides) // 4,
    )  # fmt: skip
    return out
