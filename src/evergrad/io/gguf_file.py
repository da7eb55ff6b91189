"""GGUF: the single-file format of llama.cpp, metadata and (quantised) tensors.

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

The reader of the `gguf` package believes what a file says: a count or a length that lies makes it
allocate or raise whatever comes. So the structure is walked here, every number checked against the
size of the file before it is used, and the package is left with the arithmetic of dequantising.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..backends import active
from .errors import CorruptFileError
from .stored import FORMATS, StoredTensor, map_file, map_of, row_bytes

__all__ = ["GGUF", "read_gguf"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # of tensors, unless the metadata say otherwise

#: Types of values in the metadata: format characters of `struct`.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
BOOL, STRING, ARRAY = 7, 8, 9

#: Types of tensors: their number in the file, and our name.
KINDS = {
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    6: "q5_0",
    7: "q5_1",
    8: "q8_0",
    10: "q2_k",
    11: "q3_k",
    12: "q4_k",
    13: "q5_k",
    14: "q6_k",
    24: "i8",
    25: "i16",
    26: "i32",
    27: "i64",
    28: "f64",
    30: "bf16",
}

#: Types that ggml knows, and `FORMATS` does not. The numbers between went out of use.
UNSUPPORTED = {
    9: "q8_1",
    15: "q8_k",
    16: "iq2_xxs",
    17: "iq2_xs",
    18: "iq3_xxs",
    19: "iq1_s",
    20: "iq4_nl",
    21: "iq3_s",
    22: "iq2_s",
    23: "iq4_xs",
    29: "iq1_m",
    34: "tq1_0",
    35: "tq2_0",
    39: "mxfp4",
    40: "nvfp4",
    41: "q1_0",
}

#: No key or name is longer; ggml itself stops at 64 bytes for tensors.
LONGEST_NAME = 65535
#: Bytes that the shortest entry of each table takes: a bound on how many there can be.
SHORTEST_PAIR = 8 + 1 + 4 + 1
SHORTEST_INFO = 8 + 1 + 4 + 4 + 8


class GGUF(NamedTuple):
    """What a file holds."""

    metadata: dict[str, Any]  # numbers, bools, strings; sequences of strings, arrays of numbers
    tensors: dict[str, StoredTensor]  # views of the mapped file, shapes as NumPy counts them


def read_gguf(path: str | os.PathLike[str]) -> GGUF:
    """Read the metadata of a GGUF file, and map its tensors into memory.

    Parameters
    ----------
    path : path-like
        A little-endian file, version 2 or 3, with tensors of the kinds F32, F16, BF16, F64, I8 to
        I64, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K.

    Returns
    -------
    GGUF
        (metadata, tensors). The tensors are read when they are looked at.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptFileError
        If it is truncated, no GGUF file, or says what cannot be true; the message says where.
    ValueError
        If a tensor is of another kind; the message names both.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "model.gguf")
    ...     _ = file.write_bytes(b"GGUF" + bytes([3, 0, 0, 0]) + bytes(16))
    ...     read_gguf(file)
    GGUF(metadata={}, tensors={})
    """
    data = map_file(path)
    cursor = _Cursor(path, data)
    if cursor.take(4, "the magic number") != MAGIC:
        raise CorruptFileError(f"{path}: not a GGUF file: it does not begin with 'GGUF'")
    version = cursor.scalar("I", "the version")
    if version & 0xFFFF == 0 and version:
        raise cursor.error("big-endian, which is not supported: convert it to little-endian")
    if version not in VERSIONS:
        raise cursor.error(f"GGUF version {version} is not supported, only {VERSIONS}")
    count = cursor.count(SHORTEST_INFO, "tensors")
    pairs = cursor.count(SHORTEST_PAIR, "key-value pairs")

    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = cursor.string("a key", LONGEST_NAME)
        if key in metadata:
            raise cursor.error(f"the key {key!r} occurs twice")
        metadata[key] = _value(cursor, f"the value of {key!r}")

    infos: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for _ in range(count):
        name = cursor.string("the name of a tensor", LONGEST_NAME)
        if name in infos:
            raise cursor.error(f"the tensor {name!r} occurs twice")
        infos[name] = _info(cursor, name)
    return GGUF(metadata, _tensors(cursor, infos, metadata.get("general.alignment", ALIGNMENT)))


def _value(cursor: _Cursor, what: str) -> Any:
    kind = cursor.scalar("I", f"the type of {what}")
    if kind in SCALARS:
        return cursor.scalar(SCALARS[kind], what)
    if kind == BOOL:
        return cursor.boolean(what)
    if kind == STRING:
        return cursor.string(what)
    if kind != ARRAY:
        raise cursor.error(f"unknown type {kind} of {what}")

    kind = cursor.scalar("I", f"the type of the elements of {what}")
    if kind == STRING:
        return cursor.strings(what)
    if kind == BOOL:
        return [cursor.boolean(what) for _ in range(cursor.count(1, f"elements of {what}"))]
    if kind in SCALARS:
        dtype = np.dtype(SCALARS[kind]).newbyteorder("<")
        length = cursor.count(dtype.itemsize, f"elements of {what}")
        return np.frombuffer(cursor.take(length * dtype.itemsize, what), dtype)
    raise cursor.error(f"unknown type {kind} of the elements of {what}")


def _info(cursor: _Cursor, name: str) -> tuple[str, tuple[int, ...], int]:
    """Kind, shape and offset of a tensor."""
    dimensions = cursor.scalar("I", f"the dimensions of {name!r}")
    if dimensions > 4:
        raise cursor.error(
            f"the tensor {name!r} has {dimensions} dimensions, at most 4 are allowed"
        )
    # The fastest one comes first in the file.
    shape = tuple(cursor.scalar("Q", f"the shape of {name!r}") for _ in range(dimensions))[::-1]
    number = cursor.scalar("I", f"the type of {name!r}")
    offset = cursor.scalar("Q", f"the offset of {name!r}")
    expected = f"expected one of {', '.join(KINDS.values()).upper()}"
    if number in UNSUPPORTED:
        raise ValueError(
            f"{cursor.path}: the tensor {name!r} is of the type {UNSUPPORTED[number].upper()},"
            f" which is not supported, {expected}"
        )
    if number not in KINDS:
        raise cursor.error(f"the tensor {name!r} is of the unknown type {number}, {expected}")
    if 0 in shape:
        raise cursor.error(f"the tensor {name!r} is empty: its shape is {shape}")
    kind = KINDS[number]
    block = FORMATS[kind].block
    if (shape[-1] if shape else 1) % block:
        raise cursor.error(
            f"the tensor {name!r} of shape {shape} is not made of whole {kind} blocks of {block}"
        )
    return kind, shape, offset


def _tensors(
    cursor: _Cursor, infos: dict[str, tuple[str, tuple[int, ...], int]], alignment: Any
) -> dict[str, StoredTensor]:
    """Views of all tensors; their data begin at the next multiple of `alignment`."""
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise cursor.error(f"general.alignment must be a power of two, is {alignment!r}")
    base = -(-cursor.position // alignment) * alignment
    spans = []
    for name, (kind, shape, offset) in infos.items():
        size = row_bytes(kind, shape) * math.prod(shape[:-1])  # Python's integers never overflow
        if offset % alignment:
            raise cursor.error(f"the offset {offset} of {name!r} is no multiple of {alignment}")
        spans.append((base + offset, base + offset + size, name))
    spans.sort()
    end, last = base, ""
    for start, stop, name in spans:
        if start < end:
            raise cursor.error(f"the tensors {last!r} and {name!r} overlap")
        end, last = stop, name
        if stop > len(cursor.data):
            raise cursor.error(
                f"truncated: the tensor {name!r} ends at byte {stop} of {len(cursor.data)}"
            )
    starts = {name: start for start, _, name in spans}
    return {
        name: StoredTensor.within(cursor.data, kind, shape, starts[name])
        for name, (kind, shape, _) in infos.items()
    }


class _Cursor:
    """A place in the file; everything taken from there is checked to lie inside."""

    def __init__(self, path: str | os.PathLike[str], data: npt.NDArray[np.uint8]) -> None:
        self.path, self.data = path, data
        self.bytes = map_of(data)
        self.position = 0

    def error(self, problem: str) -> CorruptFileError:
        return CorruptFileError(f"{self.path}: {problem} (at byte {self.position})")

    def take(self, size: int, what: str) -> bytes:
        start, stop = self.position, self.position + size
        if stop > len(self.bytes):
            raise self.error(
                f"truncated: {what} takes {size} bytes, {len(self.bytes) - start} remain"
            )
        self.position = stop
        return self.bytes[start:stop]

    def scalar(self, code: str, what: str) -> Any:
        layout = struct.Struct("<" + code)
        return layout.unpack(self.take(layout.size, what))[0]

    def boolean(self, what: str) -> bool:
        value = self.scalar("B", what)
        if value > 1:
            raise self.error(f"{what} is no boolean: {value}")
        return bool(value)

    def count(self, size: int, what: str) -> int:
        """A number of things that take `size` bytes or more each, all of them still to come."""
        number = self.scalar("Q", f"the number of {what}")
        remain = len(self.bytes) - self.position
        if number * size > remain:
            raise self.error(f"truncated: {number} {what} do not fit in {remain} bytes")
        return int(number)

    def string(self, what: str, longest: int | None = None) -> str:
        length = self.count(1, f"bytes of {what}")
        if longest is not None and not 0 < length <= longest:
            raise self.error(f"{what} is {length} bytes long, expected 1 to {longest}")
        data = self.take(length, what)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is not UTF-8: {error.reason}") from None

    def strings(self, what: str) -> Sequence[str]:
        """An array of strings; vocabularies are long."""
        count = self.count(8, f"elements of {what}")
        found, self.position = active.prefixed_strings(self.bytes, self.position, count)
        if len(found) < count:  # says what is wrong with the next one
            self.string(f"element {len(found)} of {what}")
        return found
