"""The linear layer on weights of few bits: decoded whole, then a product by NumPy's BLAS."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..reference.quant import unpack
from .gemm import linear

__all__ = ["linear_quantized"]

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
