"""Weights of few bits: a storage format that products read directly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends import active
from . import _check

#: Kind to (numbers, bytes) of a block.
BLOCKS = {
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q4_k": (256, 144),
    "q6_k": (256, 210),
}
#: What `quantize` writes, and shorter names for two of them.
CODED = ("f16", "bf16", "q8_0", "q4_0", "q4_1")
#: Scales and minimums are 16-bit floats.
LARGEST_HALF = 65504.0
ALIASES = {"int8": "q8_0", "int4": "q4_1"}


class QuantizedWeight:
    """A weight [rows, columns] stored in few bits, in a block layout of GGUF files.

    Products decode it where they use it, in float32 arithmetic: the result is that of the
    dequantised weight. Bytes are taken as they are, also from a read-only memory map and at odd
    addresses.

    Parameters
    ----------
    data : ndarray, uint8, [rows, bytes of a row]
        C-contiguous. Kept, not copied.
    kind : str
        "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k" or "q6_k". In those with
        q, 32 (or 256) numbers share a scale (and a minimum): they are d q (+ m), q a small integer.
    columns : int
        Numbers in a row, whole blocks.

    Attributes
    ----------
    shape : tuple of int
        (rows, columns).

    Raises
    ------
    TypeError, ValueError
        When the bytes are no such weight.

    References
    ----------
    The layouts are those of ggml (Gerganov et al.).

    Examples
    --------
    >>> weight = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    >>> coded = quantize(weight, "int4")
    >>> coded
    QuantizedWeight(2 x 32, q4_1, 40 bytes)
    >>> bool(abs(coded.dequantize() - weight).max() < 1 / 30)
    True
    """

    __slots__ = ("data", "kind", "shape")

    def __init__(self, data: np.ndarray, kind: str, columns: int) -> None:
        _check.choice("kind", kind, tuple(BLOCKS))
        columns = _check.integer("columns", columns, 0, 2**62)
        _check.array("data", data, "a uint8 numpy array")
        if data.dtype != np.uint8:
            raise TypeError(f"data: expected a uint8 numpy array, got {_check.describe(data)}")
        numbers, size = BLOCKS[kind]
        if columns % numbers:
            raise ValueError(f"columns: expected a multiple of {numbers} for {kind}, got {columns}")
        if data.ndim != 2 or data.shape[1] != columns // numbers * size:
            raise ValueError(
                f"data: expected [rows, {columns // numbers * size}] bytes for {columns} columns of"
                f" {kind}, got shape {data.shape}"
            )
        if not data.flags.c_contiguous:
            raise ValueError(f"data: expected a C-contiguous array, got strides {data.strides}")
        self.data, self.kind = data, kind
        self.shape = (data.shape[0], columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers it stands for."""
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        return 2

    @property
    def size(self) -> int:
        """How many numbers it stands for."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"QuantizedWeight({rows} x {columns}, {self.kind}, {self.nbytes} bytes)"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.dequantize().astype(np.float32 if dtype is None else dtype, copy=False)

    def dequantize(self) -> np.ndarray:
        """The numbers it stands for: float32, [rows, columns]."""
        return active.unpack(self.data, self.kind, self.shape[1], None, None)

    def rows(self, indices: Any) -> QuantizedWeight:
        """Some rows, by `indices` or a slice, in their order: bytes are moved, nothing decoded."""
        return QuantizedWeight(np.ascontiguousarray(self.data[indices]), self.kind, self.shape[1])

    @staticmethod
    def concatenate(weights: Sequence[QuantizedWeight]) -> QuantizedWeight:
        """The rows of several weights of one kind and width, one below the other.

        Where they already lie so in memory, as neighbours in a file do, nothing is copied: then
        the result shares their memory.
        """
        first = weights[0]
        for weight in weights:
            if (weight.kind, weight.shape[1]) != (first.kind, first.shape[1]):
                raise ValueError(f"weights: expected all like {first}, got {weight}")
        parts = [weight.data for weight in weights]
        together = _neighbours(parts)
        data = np.concatenate(parts) if together is None else together
        return QuantizedWeight(data, first.kind, first.shape[1])


def _neighbours(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """The rows of several arrays as one view, if each begins where the one before it ends."""
    first = end = parts[0].ctypes.data
    for part in parts:
        if part.ctypes.data != end:
            return None
        end += part.nbytes
    # Memory that others own may follow by chance: all must lie in one array.
    whole = parts[0]
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    start = whole.ctypes.data
    if whole.dtype != np.uint8 or not whole.flags.c_contiguous or end > start + whole.nbytes:
        return None
    rows = whole.reshape(-1)[first - start : end - start]
    if not all(part.flags.writeable for part in parts):
        rows.flags.writeable = False
    return rows.reshape(sum(map(len, parts)), parts[0].shape[1])


#: What products take.
Weight = np.ndarray | QuantizedWeight


def decoded(weight: Any, learns: bool = False) -> Any:
    """A weight as an array; one of few bits is decoded as a whole, and has no gradient."""
    if not isinstance(weight, QuantizedWeight):
        return weight
    if learns:
        raise ValueError("need_dweight: expected False for a QuantizedWeight, which cannot learn")
    return weight.dequantize()


def memory_of(weight: Any) -> Any:
    """The array whose memory a weight is, which no output may lie over."""
    return weight.data if isinstance(weight, QuantizedWeight) else weight


def quantize(weight: np.ndarray, kind: str) -> QuantizedWeight:
    """Store a weight in fewer bits.

    Parameters
    ----------
    weight : ndarray, float32, [rows, columns]
    kind : str
        "int8" (q8_0: 8.5 bits a number), "int4" (q4_1: 5 bits), "bf16", "f16", "q8_0", "q4_0"
        (4.5 bits) or "q4_1". Each number goes to the nearest of its group's levels.

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype, more or fewer than two dimensions, columns that are no whole
        blocks, an unknown kind; in a kind with groups NaN, infinity or more than 65504.

    Examples
    --------
    >>> quantize(np.ones((4, 64), np.float32), "int8").nbytes
    272
    """
    kind = ALIASES.get(kind, kind)
    _check.choice("kind", kind, CODED)
    _check.floats("weight", weight)
    _check.has_rank("weight", weight, 2, 2)
    weight = weight.astype(np.float32, copy=False)
    numbers, _ = BLOCKS[kind]
    if weight.shape[1] % numbers:
        raise ValueError(
            f"weight: expected a multiple of {numbers} columns for {kind}, got shape {weight.shape}"
        )
    if numbers > 1 and weight.size:
        largest = max(float(weight.max()), -float(weight.min()))  # NaN comes through
        if not largest <= LARGEST_HALF:
            raise ValueError(
                f"weight: expected finite numbers up to {LARGEST_HALF:g} for {kind}, "
                f"got {largest:g}"
            )
    return QuantizedWeight(active.pack_bits(weight, kind), kind, weight.shape[1])
