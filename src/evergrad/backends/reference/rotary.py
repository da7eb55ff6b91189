"""Rotary position embedding (Su et al. 2021)."""

from __future__ import annotations

import numpy as np

from ._common import Array, emit, ieee


# A rotation by an angle; its transpose, which is also its inverse and its gradient, turns back.
@ieee
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
    d = cos.shape[1]
    if positions is None:
        positions = np.arange(x.shape[-3])
    c, s = cos[positions][..., None, :], sin[positions][..., None, :]
    if inverse:
        s = -s
    first, second = (
        (slice(0, 2 * d, 2), slice(1, 2 * d, 2)) if interleaved else (slice(d), slice(d, 2 * d))
    )
    a, b = x[..., first], x[..., second]
    value = x.copy()
    value[..., first] = a * c - b * s
    value[..., second] = b * c + a * s
    return emit(value, out)
