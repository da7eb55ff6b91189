"""PackedLinear: several linear maps of one input as one product."""

from __future__ import annotations

from typing import Any

from .linear import Linear

__all__ = ["PackedLinear"]


class PackedLinear(Linear):
    """Several linear maps of the same input: their weights lie one below the other.

    One product reads the input once, and is large enough to run at full speed where its parts
    are not.

    Parameters
    ----------
    in_features : int
        Size of the last dimension of the input.
    parts : tuple of int
        Output features of each map. Files hold the maps apart; these are their rows.
    bias, std, rng
        As for `Linear`.

    Examples
    --------
    >>> import numpy as np
    >>> layer = PackedLinear(4, (6, 2, 2), bias=False)
    >>> out, backward = layer(np.ones((3, 4), np.float32))
    >>> out.shape, layer.parts
    ((3, 10), (6, 2, 2))
    """

    def __init__(
        self, in_features: int, parts: tuple[int, ...], bias: bool = True, **options: Any
    ) -> None:
        super().__init__(in_features, sum(parts), bias, **options)
        self.parts = parts
