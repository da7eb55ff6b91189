"""Weights of few bits: decoded whole by NumPy, then a product by its BLAS."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..reference.quant import pack_bits, unpack
from .gemm import linear

__all__ = ["linear_quantized", "pack_bits", "unpack"]

Array = NDArray[Any]


def linear_quantized(
    x: Array,
    weight: Array,
    kind: str,
    bias: Array | None,
    activation: str | None,
    residual: Array | None,
    return_pre: bool,
    out: Array | None,
) -> tuple[Array, Array | None]:
    """``linear`` with the decoded weight."""
    decoded = unpack(weight, kind, x.shape[1], None, None)
    return linear(x, decoded, bias, activation, residual, return_pre, out)
