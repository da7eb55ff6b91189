"""Tensors as they lie in a file: a view of its bytes, read when they are asked for."""

from __future__ import annotations

import importlib
import math
import mmap
import os
from contextlib import suppress
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import CorruptFileError

__all__ = ["FORMATS", "Format", "StoredTensor", "map_file", "map_of", "release"]

#: Numbers that one step of dequantising makes: its temporaries stay in the cache.
STEP = 1 << 20


class Format(NamedTuple):
    """How numbers are stored."""

    block: int  # so many numbers
    size: int  # take so many bytes
    dtype: str | None = None  # None: NumPy has no such type


#: By name, lower case. Sizes of the quantised ones: ggml-common.h of llama.cpp.
FORMATS = {
    "bool": Format(1, 1, "?"),
    "u8": Format(1, 1, "u1"),
    "i8": Format(1, 1, "i1"),
    "u16": Format(1, 2, "<u2"),
    "i16": Format(1, 2, "<i2"),
    "u32": Format(1, 4, "<u4"),
    "i32": Format(1, 4, "<i4"),
    "u64": Format(1, 8, "<u8"),
    "i64": Format(1, 8, "<i8"),
    "f16": Format(1, 2, "<f2"),
    "f32": Format(1, 4, "<f4"),
    "f64": Format(1, 8, "<f8"),
    "bf16": Format(1, 2),
    "q4_0": Format(32, 18),
    "q4_1": Format(32, 20),
    "q5_0": Format(32, 22),
    "q5_1": Format(32, 24),
    "q8_0": Format(32, 34),
    "q2_k": Format(256, 84),
    "q3_k": Format(256, 110),
    "q4_k": Format(256, 144),
    "q5_k": Format(256, 176),
    "q6_k": Format(256, 210),
}


class StoredTensor:
    """A tensor in a file. NumPy takes it for an array: `np.asarray(stored, np.float32)`.

    Parameters
    ----------
    kind : str
        One of `FORMATS`.
    shape : tuple of int
        Of the tensor; the last dimension consists of whole blocks.
    data : ndarray of uint8
        [rows, bytes of a row]; rows counts all dimensions but the last.

    Examples
    --------
    >>> StoredTensor("bf16", (2,), np.array([[0x80, 0x3F, 0x20, 0x40]], np.uint8)).numpy()
    array([1. , 2.5], dtype=float32)
    """

    __slots__ = ("data", "kind", "shape")

    def __init__(self, kind: str, shape: tuple[int, ...], data: npt.NDArray[np.uint8]) -> None:
        self.kind, self.shape, self.data = kind, shape, data

    def __repr__(self) -> str:
        return f"StoredTensor({self.kind}, shape={self.shape})"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array that `numpy` gives: float32 where NumPy has no such type."""
        return np.dtype(FORMATS[self.kind].dtype or np.float32)

    @property
    def nbytes(self) -> int:
        """What the tensor takes in the file."""
        return self.data.nbytes

    @property
    def T(self) -> npt.NDArray[Any]:
        """The transpose."""
        return self.numpy().T

    def numpy(self) -> npt.NDArray[Any]:
        """Return the numbers: a read-only view of the file if NumPy has the type, else float32.

        Raises
        ------
        ImportError
            If the format is a quantised one and the `gguf` package is missing.
        """
        if FORMATS[self.kind].dtype is not None:
            return self.data.view(self.dtype).reshape(self.shape)
        columns = self.shape[-1] if self.shape else 1
        out = np.empty((len(self.data), columns), np.float32)
        step = max(STEP // max(columns, 1), 1)
        for start in range(0, len(out), step):
            rows = slice(start, start + step)
            if self.kind == "bf16":  # the upper half of a float32
                out[rows].view(np.uint32)[...] = self.data[rows].view("<u2")
                out[rows].view(np.uint32)[...] <<= 16
            else:
                # A block of noise may hold a scale that is infinite: 0 times that is NaN.
                with np.errstate(all="ignore"):
                    out[rows] = _quants().dequantize(self.data[rows], _types()[self.kind.upper()])
        return out.reshape(self.shape)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        array = self.numpy()
        if copy is None:
            return array if dtype is None else array.astype(dtype, copy=False)
        return np.array(array, dtype, copy=copy)

    def take_rows(self, rows: npt.NDArray[Any]) -> StoredTensor:
        """Return the chosen rows of a matrix, or numbers of a vector.

        Rows stay as they are stored, since they are independent. Of a vector in blocks, whose
        numbers are not, float32 is made.
        """
        if len(self.shape) != 1:
            return StoredTensor(self.kind, (len(rows), *self.shape[1:]), self.data[rows])
        form, kind, data = FORMATS[self.kind], self.kind, self.data
        if form.block > 1:
            form, kind, data = FORMATS["f32"], "f32", self.numpy().view(np.uint8)
        data = data.reshape(-1, form.size)[rows]
        return StoredTensor(kind, (len(rows),), data.reshape(1, -1))

    @classmethod
    def within(
        cls, data: npt.NDArray[np.uint8], kind: str, shape: tuple[int, ...], start: int
    ) -> StoredTensor:
        """View the tensor that begins at byte `start` of `data`; its size has been checked."""
        rows = math.prod(shape[:-1])
        stop = start + row_bytes(kind, shape) * rows
        return cls(kind, shape, data[start:stop].reshape(rows, row_bytes(kind, shape)))


def row_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """Bytes of a row, which is all of the last dimension."""
    form = FORMATS[kind]
    return (shape[-1] if shape else 1) // form.block * form.size


class _FileMap(mmap.mmap):
    """All of a file, which nobody writes to."""


def map_file(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Map a file into memory: its bytes are read from the disk when they are looked at.

    Parameters
    ----------
    path : path-like
        The file. As long as the array lives it must not be cut short in place; to replace or to
        remove it is harmless.

    Returns
    -------
    ndarray of uint8
        All bytes, read-only.

    Raises
    ------
    OSError
        If it is missing, a folder, or not readable.
    CorruptFileError
        If it is empty.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise CorruptFileError(f"{path}: truncated: the file is empty")
        return np.frombuffer(_FileMap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def map_of(data: npt.NDArray[np.uint8]) -> Any:
    """The map behind an array from `map_file`; of another array, whatever owns its memory."""
    return data.base.obj if isinstance(data.base, memoryview) else data.base


def release(tensor: Any) -> None:
    """Give back the memory behind what was mapped; looked at again, it is read from the disk again.

    Parameters
    ----------
    tensor : ndarray or object with `data`
        What is no view of a file that `read_gguf` or `read_safetensors` mapped is left alone.

    Examples
    --------
    >>> release(np.zeros(3))
    """
    part = tensor if isinstance(tensor, np.ndarray) else getattr(tensor, "data", None)
    if not isinstance(part, np.ndarray):
        return
    part = part.T if part.flags.f_contiguous else part
    whole = part
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    base = map_of(whole)
    # Of other maps the contents might be lost: what was written to a private one is nowhere else.
    if not isinstance(base, _FileMap) or not part.flags.c_contiguous:
        return
    begin = part.ctypes.data - whole.ctypes.data
    # Pages that lie in it whole: the first and the last may be a neighbour's too.
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (begin + part.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if size > 0 and hasattr(base, "madvise"):
        with suppress(OSError):  # locked into memory: it stays
            base.madvise(mmap.MADV_DONTNEED, first, size)


def _quants() -> ModuleType:
    try:
        return importlib.import_module("gguf.quants")
    except ImportError as error:
        raise ImportError(
            "the package `gguf` is needed to dequantise weights: pip install 'evergrad[gguf]'"
        ) from error


def _types() -> Any:
    return importlib.import_module("gguf.constants").GGMLQuantizationType
