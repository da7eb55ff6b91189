"""What every family shares: IEEE arithmetic without warnings, outputs, stable exponentials."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""A floating array of the backend, or an index array where the name says so."""

P = ParamSpec("P")
R = TypeVar("R")


def ieee(function: Callable[P, R]) -> Callable[P, R]:
    """Let inf and NaN flow as IEEE 754 has them: they are results here, not warnings."""

    @functools.wraps(function)
    def quiet(*args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return quiet


def emit(value: Array, out: Array | None, like: Array | None = None) -> Array:
    """Return `value`, in `out` when given. Writing comes last, so `out` may alias an input.

    Elementwise ops name an input, `like`, whose dtype the result has: NumPy 1 makes float64 of a
    float32 without dimensions that meets a number.
    """
    if out is None:  # NumPy turns 0-d results into scalars
        return np.asarray(value, None if like is None else like.dtype)
    out[...] = value
    return out


def accumulate(value: Array, total: Array | None) -> Array:
    """Add `value` to `total` when given: the law of parameter gradients."""
    if total is None:
        return value
    total += value
    return total


def exponentials(x: Array) -> tuple[Array, Array, Array]:
    """Return (exp(x - peak), its sum, peak) over the last dim, the latter two with that dim kept.

    `peak` is the row's maximum, so no exponential overflows and the largest is one. A row that
    is all -inf (or has no entries) takes peak 0: its exponentials and sum are zero, not NaN.
    """
    peak = x.max(axis=-1, keepdims=True, initial=-np.inf)
    peak[peak == -np.inf] = 0
    exps = np.exp(x - peak)
    return exps, exps.sum(axis=-1, keepdims=True), peak
