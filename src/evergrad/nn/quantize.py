"""A model's matrices in few bits: less memory to hold, and less to read for each token."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import ops
from ..ops.quant import BLOCKS
from .embedding import Embedding
from .flat import flatten_
from .linear import Linear
from .module import Module

__all__ = ["Quantized", "quantize"]


class Quantized(NamedTuple):
    """What `quantize` did.

    Attributes
    ----------
    before, after : int
        Bytes of all parameters.
    otherwise : tuple of str
        Matrices whose rows are no whole groups: they are in bf16.
    """

    before: int
    after: int
    otherwise: tuple[str, ...]


def quantize(model: Module, kind: str) -> Quantized:
    """Store the matrices of a model's linear maps and token embeddings in fewer bits, in place.

    They learn no more; norms, biases and tables of positions stay in float32, and go on learning
    where they did. Tied matrices stay tied, and those in few bits already stay as they are. How
    much quality it costs is for the reader to measure (bits per byte).

    Parameters
    ----------
    model : Module
    kind : str
        "int8", "int4", "bf16" ... as for `ops.quantize`.

    Returns
    -------
    Quantized
        Bytes before and after.

    Examples
    --------
    >>> from evergrad import nn
    >>> net = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 32, bias=False))
    >>> nn.quantize(net, "int8")
    Quantized(before=24576, after=6528, otherwise=())
    >>> net(np.ones((1, 64), np.float32))[0].shape
    (1, 32)
    """
    empty = ops.quantize(np.zeros((0, 32), np.float32), kind)  # knows it, before anything changes
    group, _ = BLOCKS[empty.kind]
    before, otherwise = _bytes(model), []
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for _, layer in model.named_modules():
        if not isinstance(layer, (Linear, Embedding)):
            continue
        if isinstance(layer, Embedding) and not layer.is_quantizable:
            continue
        weight = layer.weight
        if isinstance(weight.data, ops.QuantizedWeight):
            continue  # tied, or so already
        whole = weight.data.shape[1] % group == 0
        if not whole:
            otherwise.append(names[id(weight)])
        weight.requires_grad = False
        weight.data = ops.quantize(weight.data, kind if whole else "bf16")
    flatten_(model)
    return Quantized(before, _bytes(model), tuple(otherwise))


def _bytes(model: Module) -> int:
    return sum(parameter.data.nbytes for parameter in model.parameters())
