"""Relative positions as a learned bias of the attention's scores."""

from __future__ import annotations

import numpy as np

from .. import ops
from ._backward import once
from ._buffer import Array
from .embedding import Embedding
from .module import Module

__all__ = ["RelativePositionBias"]


class RelativePositionBias(Module):
    """A number for each head and bucket of distances, added to the scores of attention.

    Parameters
    ----------
    buckets, heads : int
        Rows and columns of the table.
    max_distance : int, default 128
        Distances from here on share a bucket.
    bidirectional : bool, default True
        Whether keys ahead of the query have buckets of their own.
    std, rng
        As for `Embedding`.

    Raises
    ------
    ValueError
        When there are too few buckets, or `max_distance` is not beyond those of one distance each.

    Attributes
    ----------
    table : Embedding
        [buckets, heads].

    References
    ----------
    Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
    Transformer", 2020, arXiv:1910.10683 (section 2.1).

    Examples
    --------
    >>> bias, backward = RelativePositionBias(buckets=8, heads=2)(3, 5)
    >>> bias.shape
    (1, 2, 3, 5)
    """

    def __init__(
        self,
        buckets: int,
        heads: int,
        max_distance: int = 128,
        bidirectional: bool = True,
        *,
        std: float = 1.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        # What no distance has a bucket of is refused now, not by the first text.
        ops.relative_position_buckets(
            0, 0, bidirectional=bidirectional, num_buckets=buckets, max_distance=max_distance
        )
        self.table = Embedding(buckets, heads, std=std, rng=rng, is_quantizable=False)
        self.max_distance, self.bidirectional = max_distance, bidirectional

    def __call__(self, tokens_q: int, tokens_k: int) -> tuple[Array, once]:
        """Bias of `tokens_q` queries at the end of `tokens_k` keys.

        Returns
        -------
        bias : ndarray
            [1, heads, tokens_q, tokens_k].
        backward : callable
            dbias -> None.
        """
        buckets = ops.relative_position_buckets(
            tokens_q,
            tokens_k,
            bidirectional=self.bidirectional,
            num_buckets=self.table.weight.data.shape[0],
            max_distance=self.max_distance,
        )
        rows, table_backward = self.table(buckets)  # [tokens_q, tokens_k, heads]
        bias = np.ascontiguousarray(rows.transpose(2, 0, 1))[None]
        return bias, once(
            lambda dbias: table_backward(np.ascontiguousarray(dbias[0].transpose(1, 2, 0)))
        )
