"""Embedding: a table of vectors, looked up by index."""

from __future__ import annotations

import numpy as np

from .. import ops
from ._backward import once
from ._buffer import Array
from .module import Module
from .parameter import Parameter
from .random import initial_weight

__all__ = ["Embedding", "embedding_sum"]


class Embedding(Module):
    """A table of vectors: ``y[i] = weight[input[i]]``.

    Parameters
    ----------
    num_embeddings, dim : int
        Rows of the table, and their length.
    std : float, default 1.0
        Standard deviation of the initial values.
    rng : numpy.random.Generator, optional
        Source of the initial values; default: fresh entropy.
    is_quantizable : bool, default True
        Whether `quantize` may store it in few bits. A small table is not worth its error.

    Attributes
    ----------
    weight : Parameter
        [num_embeddings, dim].

    Examples
    --------
    >>> table = Embedding(3, 2)
    >>> table.weight.data[...] = [[0, 0], [1, 10], [2, 20]]
    >>> out, backward = table(np.array([2, 1]))
    >>> out
    array([[ 2., 20.],
           [ 1., 10.]], dtype=float32)
    """

    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        std: float = 1.0,
        rng: np.random.Generator | None = None,
        is_quantizable: bool = True,
    ) -> None:
        self.is_quantizable = is_quantizable
        self.weight = Parameter(initial_weight((num_embeddings, dim), std, rng, dim))

    def __call__(
        self, input: Array, *, add_to: Array | None = None, need_dx: bool = False
    ) -> tuple[Array, once]:
        """Look up rows.

        Parameters
        ----------
        input : ndarray of int
            [...], each in [0, num_embeddings).
        add_to : ndarray, optional
            [..., dim]: the rows are added to it, in place, and it is the output. Its cotangent
            is dout itself.
        need_dx : bool
            Ignored: indices have no gradient. `Sequential` says it to every layer.

        Returns
        -------
        out : ndarray
            [..., dim].
        backward : callable
            dout -> None: indices have no gradient.
        """
        weight = self.weight
        out = ops.embedding(input, weight.data, out=add_to, accumulate=add_to is not None)

        @once
        def backward(dout: Array) -> None:
            if weight.requires_grad:
                ops.embedding_backward(dout, input, len(weight.data), dweight=weight.grad)

        return out, backward


def embedding_sum(
    token: Embedding,
    input: Array,
    position: Embedding,
    positions: Array,
    segment: Embedding | None = None,
    segments: Array | None = None,
) -> tuple[Array, once]:
    """Rows of two or three tables added up, in one pass: the first layer of a transformer.

    Parameters
    ----------
    token, position : Embedding
    input, positions : ndarray of int
        [...], each.
    segment, segments : Embedding and ndarray of int, optional
        Likewise; both or none.

    Returns
    -------
    out : ndarray
        [..., dim].
    backward : callable
        dout -> None.

    Examples
    --------
    >>> words, places = Embedding(3, 2), Embedding(2, 2)
    >>> words.weight.data[...], places.weight.data[...] = [[0], [1], [2]], [[10], [20]]
    >>> out, backward = embedding_sum(words, np.array([2, 1]), places, np.array([0, 1]))
    >>> out
    array([[12., 12.],
           [21., 21.]], dtype=float32)
    """
    weight, places = token.weight, position.weight
    kinds = None if segment is None else segment.weight
    kinds_data = None if kinds is None else kinds.data
    out = ops.embedding_sum(input, weight.data, positions, places.data, segments, kinds_data)

    @once
    def backward(dout: Array) -> None:
        ops.embedding_sum_backward(
            dout, input, positions, segments,
            num_embeddings=len(weight.data), num_positions=len(places.data),
            num_segments=0 if kinds is None else len(kinds.data),
            dweight=weight.grad, dposition_weight=places.grad,
            dsegment_weight=None if kinds is None else kinds.grad,
            need_dweight=weight.requires_grad, need_dposition_weight=places.requires_grad,
            need_dsegment_weight=kinds is not None and kinds.requires_grad,
        )  # fmt: skip

    return out, backward
