"""Layers: `out, backward = layer(x)`, `dx = backward(dout)`.

A layer computes its output and hands back a function for the way back, which adds to each
`Parameter.grad` and returns the gradient of the input. There is no tape and no graph: a model is
a composition of such pairs, and its backward pass is written where its forward pass is.
"""

from __future__ import annotations

from ._backward import NEITHER, NO_BACKWARD, NOTHING, once
from ._buffer import Array
from .activation import GELU, ReLU, Sigmoid, Tanh
from .attention import Attention, CrossAttention
from .decoder import CachedBlocks
from .dropout import Dropout
from .embedding import Embedding, embedding_sum
from .evaluation import evaluating
from .flat import FlatParameters, flatten_
from .head import Head
from .linear import Linear, ResidualLinear
from .mlp import MLP, GatedMLP
from .module import Module
from .norm import LayerNorm, RMSNorm
from .packed import PackedLinear
from .parameter import Parameter
from .pooling import Pool
from .position import RelativePositionBias
from .quantize import Quantized, quantize
from .random import RandomStream
from .rotary import Rotary, Rotation
from .sequential import Sequential

__all__ = [
    "GELU",
    "MLP",
    "NEITHER",
    "NOTHING",
    "NO_BACKWARD",
    "Array",
    "Attention",
    "CachedBlocks",
    "CrossAttention",
    "Dropout",
    "Embedding",
    "FlatParameters",
    "GatedMLP",
    "Head",
    "LayerNorm",
    "Linear",
    "Module",
    "PackedLinear",
    "Parameter",
    "Pool",
    "Quantized",
    "RMSNorm",
    "RandomStream",
    "ReLU",
    "RelativePositionBias",
    "ResidualLinear",
    "Rotary",
    "Rotation",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "embedding_sum",
    "evaluating",
    "flatten_",
    "once",
    "quantize",
]
