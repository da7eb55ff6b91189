"""The blocks of a decoder behind a cache, in one native call where they are ordinary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import is_
from typing import Any

import numpy as np

from ..ops.decoder import Decoder, DecoderBlock, Map, Norm
from ._buffer import Array
from .attention import Attention
from .linear import Linear, ResidualLinear
from .mlp import MLP, GatedMLP
from .norm import LayerNorm, RMSNorm
from .packed import PackedLinear
from .rotary import Rotation

__all__ = ["CachedBlocks"]


class CachedBlocks:
    """Pre-norm blocks, for calls that have a cache and no way back.

    Parameters
    ----------
    blocks : list of module
        With `norm_1`, `attention`, `norm_2` and `mlp`. They may change between calls: what is not
        a plain layer of this package any more, or drops, is noticed, and so are other arrays and
        numbers in them.
    kind : type
        The class of a plain block.
    """

    def __init__(self, blocks: Sequence[Any], kind: type) -> None:
        self.blocks, self._kind = blocks, kind
        self._decoder: Decoder | None = None
        # Arrays and numbers that the decoder was told of. To hold them keeps their identities
        # from others.
        self._arrays: list[Any] = []
        self._numbers: list[Any] = []

    def __reduce__(self) -> Any:
        return CachedBlocks, (self.blocks, self._kind)  # copies look at their own blocks anew

    def ready(self) -> bool:
        """Whether `run` can take the place of the blocks; if not, call them one by one."""
        if not Decoder.is_available():
            return False
        arrays: list[Any] = []
        numbers: list[Any] = []
        for block in self.blocks:
            if type(block) is not self._kind or not _is_plain(block):
                return False
            _look(block, arrays, numbers)
        same = len(arrays) == len(self._arrays) and numbers == self._numbers
        if self._decoder is None or not (same and all(map(is_, arrays, self._arrays))):
            described = [_described(block) for block in self.blocks]
            if not all(_is_float32(each) for each in described):
                return False
            self._decoder, self._arrays, self._numbers = Decoder(described), arrays, numbers
        return True

    def run(
        self,
        x: Array,
        cache: Array,
        spans: Sequence[tuple[int, int, int, int, int]],
        rotation: Rotation | None,
        last_only: bool = False,
    ) -> Array:
        """As `ops.decoder.Decoder`; the rotation has a row for each token."""
        assert self._decoder is not None
        cos, sin = (None, None) if rotation is None else (rotation.cos, rotation.sin)
        return self._decoder(x, cache, spans, cos, sin, last_only=last_only)


def _is_plain(block: Any) -> bool:
    attention, mlp = block.attention, block.mlp
    kind = type(mlp)
    up = getattr(mlp, "gate_up", None) if kind is GatedMLP else getattr(mlp, "up", None)
    return (
        type(attention) is Attention
        and attention.observer is None
        and attention.options["is_causal"]
        and type(attention.qkv) is PackedLinear
        and type(attention.proj) is ResidualLinear
        and (kind is GatedMLP or kind is MLP)
        and type(up) is (PackedLinear if kind is GatedMLP else Linear)
        and type(mlp.down) is ResidualLinear
        and type(block.norm_1) in (RMSNorm, LayerNorm)
        and type(block.norm_2) in (RMSNorm, LayerNorm)
        and not (attention.proj.dropout.active or mlp.down.dropout.active)
        and not (mlp.hidden_dropout.active or (attention.training and attention.attention_dropout))
    )


def _look(block: Any, arrays: list[Any], numbers: list[Any]) -> None:
    """Collect the arrays and the numbers of a block that a decoder is told of."""
    attention, mlp = block.attention, block.mlp
    gated = type(mlp) is GatedMLP
    up = mlp.gate_up if gated else mlp.up
    for norm in (block.norm_1, block.norm_2):
        arrays.append(norm.weight.data)
        numbers.append(norm.eps)
        if type(norm) is LayerNorm:
            arrays.append(norm.bias.data)
    for layer in (attention.qkv, attention.proj, up, mlp.down):
        arrays.append(layer.weight.data)
        if layer.bias is not None:
            arrays.append(layer.bias.data)
    numbers += (attention.options["scale"], attention.options["window_size"])
    numbers += (attention.heads, attention.kv_heads, attention.head_dim)
    numbers.append(mlp.activation if gated else up.activation)


def _described(block: Any) -> DecoderBlock:
    attention, mlp = block.attention, block.mlp
    gated = type(mlp) is GatedMLP
    scale = attention.options["scale"]
    return DecoderBlock(
        norm_1=_norm(block.norm_1),
        qkv=_map(attention.qkv),
        proj=_map(attention.proj),
        norm_2=_norm(block.norm_2),
        up=_map(mlp.gate_up if gated else mlp.up),
        down=_map(mlp.down),
        activation=mlp.activation if gated else mlp.up.activation,
        is_gated=gated,
        heads=attention.heads,
        kv_heads=attention.kv_heads,
        head_dim=attention.head_dim,
        window_left=attention.options["window_size"][0],
        scale=1.0 / math.sqrt(attention.head_dim) if scale is None else scale,
    )


def _norm(norm: Any) -> Norm:
    bias = norm.bias.data if type(norm) is LayerNorm else None
    return Norm(type(norm) is RMSNorm, norm.eps, norm.weight.data, bias)


def _map(layer: Any) -> Map:
    return Map.of(layer.weight.data, None if layer.bias is None else layer.bias.data)


def _is_float32(block: DecoderBlock) -> bool:
    """Not so of a model in float64, which the native backend does not take."""
    return block.norm_1.weight.dtype == np.float32
