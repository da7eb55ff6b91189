"""Blocks of a decoder behind a cache, in one call of the native backend.

With a single token a block is some ten calls of a few microseconds each, and Python between them
takes as long as they do. What comes out is, bit for bit, what the parts give one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backends import active
from . import _check
from .gemm import ACTIVATIONS
from .quant import QuantizedWeight


class Norm(NamedTuple):
    """`rms_norm` or `layer_norm` over the last dimension."""

    is_rms: bool
    eps: float
    weight: np.ndarray
    bias: np.ndarray | None = None


class Map(NamedTuple):
    """`linear`; `kind` is that of a QuantizedWeight, whose bytes `weight` then is."""

    weight: np.ndarray
    kind: str | None
    in_features: int
    bias: np.ndarray | None

    @classmethod
    def of(cls, weight: Any, bias: np.ndarray | None) -> Map:
        """A weight of either sort."""
        if isinstance(weight, QuantizedWeight):
            return cls(weight.data, weight.kind, weight.shape[1], bias)
        return cls(weight, None, weight.shape[1], bias)


class DecoderBlock(NamedTuple):
    """One layer: attention, then an MLP, each behind a norm and added to what came in.

    Of qkv the rows are queries, keys and values, each head by head; of a gated `up`, those of the
    gate and then the others.
    """

    norm_1: Norm
    qkv: Map
    proj: Map
    norm_2: Norm
    up: Map
    down: Map
    activation: str | None
    is_gated: bool
    heads: int
    kv_heads: int
    head_dim: int
    window_left: int
    scale: float


class Decoder:
    """Blocks whose weights have been looked at once; not every backend has it (`is_available`).

    Parameters
    ----------
    blocks : sequence of DecoderBlock
        Their arrays are kept, not copied: what is written into them later shows.

    Raises
    ------
    TypeError, ValueError
        When an array is not float32 and contiguous, or shapes do not fit each other.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> norm = Norm(True, 1e-6, np.ones(4, np.float32))
    >>> def zeros(rows, columns):
    ...     return Map.of(np.zeros((rows, columns), np.float32), None)
    >>> block = DecoderBlock(
    ...     norm, zeros(12, 4), zeros(4, 4), norm, zeros(16, 4), zeros(4, 8), "silu", True,
    ...     heads=2, kv_heads=2, head_dim=2, window_left=-1, scale=1.0,
    ... )
    >>> cache = np.zeros((1, 1, 4, 5, 2), np.float32)
    >>> x = np.ones((3, 4), np.float32)
    >>> spans = [(0, 1, 0, 0, 3)]
    >>> not Decoder.is_available() or bool((Decoder([block])(x, cache, spans) == x).all())
    True
    """

    def __init__(self, blocks: Sequence[DecoderBlock]) -> None:
        self.blocks = tuple(blocks)  # the native half holds addresses of their arrays
        for block in self.blocks:
            _check_block(block, self.blocks[0])
        self._native = active.decoder(self.blocks)

    @staticmethod
    def is_available() -> bool:
        """Whether the active backend has it."""
        return active.decoder is not None

    def __call__(
        self,
        x: np.ndarray,
        cache: np.ndarray,
        spans: Sequence[tuple[int, int, int, int, int]],
        cos: np.ndarray | None = None,
        sin: np.ndarray | None = None,
        *,
        last_only: bool = False,
    ) -> np.ndarray:
        """Run all blocks over tokens, and append their keys and values.

        Parameters
        ----------
        x : ndarray, float32, [tokens, dim]
        cache : ndarray, float32, [blocks, slots, 2 kv_heads, capacity, head_dim]
            Heads of keys, then of values, of each their tokens.
        spans : sequence of (slot, slots, first, start, tokens)
            So many slots from `slot` on hold `start` tokens each and get `tokens` more: rows of x
            from `first` on.
        cos, sin : ndarray, float32, [tokens, d], optional
            As for `rotary`: a row for each token.
        last_only : bool, default False
            Whether of each slot that gets tokens only the last one comes out: for the others the
            last block ends with keys and values.

        Returns
        -------
        ndarray
            float32, [tokens, dim], or [slots that get tokens, dim].

        Raises
        ------
        TypeError, ValueError
            When one does not fit the others or the blocks.
        """
        if not self.blocks:
            return x[last_rows(spans)] if last_only else x
        first = self.blocks[0]
        _check.floats("x", x)
        _check.same_dtype("norm_1.weight", first.norm_1.weight, x=x)
        tokens = len(x)
        _check.has_shape("x", x, (tokens, first.qkv.in_features))
        _check.floats("cache", cache)
        _check.has_rank("cache", cache, 5, 5)
        slots, capacity = cache.shape[1], cache.shape[3]
        expected = (len(self.blocks), slots, 2 * first.kv_heads, capacity, first.head_dim)
        _check.output("cache", cache, expected, "x", x)
        row = 0
        for slot, count, begin, start, new in spans:
            inside = slot >= 0 <= start and count >= 0 <= new and slot + count <= slots
            if not inside or start + new > capacity or begin != row:
                raise ValueError(
                    f"spans: expected rows one after the other, and room for them in {slots} slots"
                    f" of {capacity}, got {(slot, count, begin, start, new)}"
                )
            row += count * new
        if row != tokens:
            raise ValueError(f"spans: expected {tokens} rows like x, got {row}")
        if cos is not None:
            _check.floats("cos", cos)
            _check.has_rank("cos", cos, 2, 2)
            _check.has_shape("cos", cos, (tokens, min(cos.shape[1], first.head_dim // 2)))
            _check.required("sin", sin, cos.shape, "cos", cos)
        elif sin is not None:
            raise ValueError("sin: expected None without cos, got an array")
        _check.no_overlap("cache", cache, x=x, cos=cos, sin=sin)
        result: np.ndarray = self._native.run(x, cache, spans, cos, sin, last_only)
        return result


def last_rows(spans: Sequence[tuple[int, int, int, int, int]]) -> list[int]:
    """Where the last token of each slot lies, of those that get any."""
    return [
        first + (i + 1) * tokens - 1
        for _, slots, first, _, tokens in spans
        for i in range(slots)
        if tokens
    ]


def _check_block(block: DecoderBlock, first: DecoderBlock) -> None:
    heads, kv_heads, head_dim = block.heads, block.kv_heads, block.head_dim
    if min(heads, kv_heads, head_dim) < 1 or heads % kv_heads:
        raise ValueError(
            f"kv_heads: expected a number that divides heads, got heads={heads},"
            f" kv_heads={kv_heads}, head_dim={head_dim}"
        )
    dim, inner = first.qkv.in_features, block.heads * block.head_dim
    rows = inner + 2 * block.kv_heads * block.head_dim
    hidden = block.down.in_features
    for name, norm in (("norm_1", block.norm_1), ("norm_2", block.norm_2)):
        _check.floats(f"{name}.weight", norm.weight)
        _check.has_shape(f"{name}.weight", norm.weight, (dim,))
        _check.optional(f"{name}.bias", norm.bias, (dim,), f"{name}.weight", norm.weight)
        _check.number(f"{name}.eps", norm.eps, 0.0)
        if norm.is_rms and norm.bias is not None:
            raise ValueError(f"{name}.bias: expected None for an rms norm, got an array")
    for name, map, shape in (
        ("qkv", block.qkv, (rows, dim)),
        ("proj", block.proj, (dim, inner)),
        ("up", block.up, (hidden * (2 if block.is_gated else 1), dim)),
        ("down", block.down, (dim, hidden)),
    ):
        if map.kind is None:
            _check.floats(f"{name}.weight", map.weight)
            _check.has_shape(f"{name}.weight", map.weight, (len(map.weight), map.in_features))
        else:
            QuantizedWeight(map.weight, map.kind, map.in_features)  # checks the bytes
        if (len(map.weight), map.in_features) != shape:
            raise ValueError(
                f"{name}.weight: expected {shape}, got {(len(map.weight), map.in_features)}"
            )
        like = block.norm_1.weight
        _check.optional(f"{name}.bias", map.bias, shape[:1], "norm_1.weight", like)
    gates = ("silu", "gelu", "gelu_tanh")
    _check.choice("activation", block.activation, gates if block.is_gated else ACTIVATIONS)
    _check.number("scale", block.scale)
    _check.integer("window_left", block.window_left, -1, 2**62)
    if (block.kv_heads, block.head_dim) != (first.kv_heads, first.head_dim):
        raise ValueError("blocks: expected all to share a cache, got other heads")
