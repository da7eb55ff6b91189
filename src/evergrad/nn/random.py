"""Randomness of a model: initial weights, and the counter that dropout masks come from."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RandomStream", "initial_weight"]


class RandomStream:
    """A position in a counter-based random sequence, shared by the dropout layers of a model.

    Element i of a mask is a pure function of `(seed, offset + i)`, so two integers are the whole
    state: a backward pass recomputes its mask, and a resumed run continues with the same masks.

    Parameters
    ----------
    seed : int, optional
        Which sequence, in [0, 2^64); default: fresh entropy.
    offset : int, default 0
        The next unused counter.

    Examples
    --------
    >>> stream = RandomStream(seed=7)
    >>> stream.take(100), stream.take(50), stream.offset
    (0, 100, 150)
    """

    __slots__ = ("offset", "seed")

    def __init__(self, seed: int | None = None, offset: int = 0) -> None:
        self.seed = int.from_bytes(os.urandom(8), "little") >> 1 if seed is None else seed
        self.offset = offset

    def take(self, count: int) -> int:
        """Reserve `count` counters and return the first of them."""
        first = self.offset
        self.offset += count
        return first


def initial_weight(
    shape: tuple[int, ...], std: float | None, rng: np.random.Generator | None, fan_in: int
) -> npt.NDArray[np.float32]:
    """Draw the initial values of a weight.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    std : float or None
        Standard deviation of a normal distribution; 0 gives zeros and draws nothing (for weights
        that are about to be loaded); None gives U(-b, b), b = 1 / sqrt(fan_in).
    rng : numpy.random.Generator or None
        Source of randomness; None: fresh entropy.
    fan_in : int
        Number of inputs that each output sums over.

    Returns
    -------
    ndarray
        float32.

    References
    ----------
    LeCun, Bottou, Orr & Mueller, "Efficient BackProp", 1998 (section 4.6).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> bool(abs(initial_weight((1000, 9), None, rng, fan_in=9)).max() <= 1 / 3)
    True
    """
    if std == 0:
        return np.zeros(shape, np.float32)
    rng = np.random.default_rng() if rng is None else rng
    if std is None:
        bound = 1 / math.sqrt(max(fan_in, 1))
        values: npt.NDArray[Any] = rng.random(shape, np.float32) * (2 * bound) - bound
    else:
        values = rng.standard_normal(shape, np.float32) * std
    return values.astype(np.float32, copy=False)
