"""Named arrays in the safetensors format (a JSON header, then raw little-endian data).

Specification: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .atomic import atomic_file
from .errors import CorruptFileError
from .stored import FORMATS, StoredTensor, map_file

__all__ = ["load_safetensors", "read_safetensors", "save_safetensors"]

#: Bytes of the header's length, which come first, and the most that the format allows for it.
LENGTH, LONGEST_HEADER = 8, 100_000_000
#: As NumPy 1 has it.
MOST_DIMENSIONS = 32

#: Numbers that safetensors knows; its names are ours in capitals.
KINDS = {
    kind.upper(): kind for kind, form in FORMATS.items() if form.dtype is not None or kind == "bf16"
}
NAMES = {np.dtype(FORMATS[kind].dtype): name for name, kind in KINDS.items() if kind != "bf16"}


def save_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, npt.NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays to a safetensors file, atomically.

    Parameters
    ----------
    path : path-like
        The file; an existing one is replaced.
    tensors : mapping of str to ndarray
        Arrays of any shape (0-d and empty too), numeric or boolean dtype, any strides. They go to
        the disk one by one: none is copied unless it is strided or big-endian.
    metadata : mapping of str to str, optional
        Kept in the header.

    Raises
    ------
    TypeError
        If a name or metadata is not a string, or a value is not a numeric array.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "model.safetensors")
    ...     save_safetensors(file, {"weight": np.arange(3, dtype=np.float32)})
    ...     load_safetensors(file)["weight"]
    array([0., 1., 2.], dtype=float32)
    """
    check_tensors(path, tensors)
    for key, text in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"{path}: metadata must map str to str, got {key!r}: {text!r}")

    # Large numbers first: then each array begins at a multiple of its item size.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": NAMES[_little(tensors[name].dtype)],
            "shape": tensors[name].shape,
            "data_offsets": (start, end),
        }
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % LENGTH)
    with atomic_file(path) as file:
        file.write(len(head).to_bytes(LENGTH, "little") + head)
        for name in order:
            value = np.asarray(tensors[name], _little(tensors[name].dtype), order="C")
            file.write(value.reshape(-1).view(np.uint8).data)


def check_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Any]) -> None:
    """Refuse what `save_safetensors` cannot write to `path`."""
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"{path}: tensor names must be str, got {name!r}")
        known = isinstance(value, (np.ndarray, np.generic)) and _little(value.dtype) in NAMES
        if not known:
            kind = getattr(value, "dtype", type(value).__name__)
            raise TypeError(f"{path}: tensor {name!r} must be a numeric array, got {kind}")


def load_safetensors(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Read every array of a safetensors file.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    dict of str to ndarray
        Fresh, writable, C-contiguous arrays in the dtype of the file; float32 for BF16.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptFileError
        As `read_safetensors`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "model.safetensors")
    ...     _ = file.write_bytes(b"no header")
    ...     try:
    ...         load_safetensors(file)
    ...     except CorruptFileError:
    ...         print("refused")
    refused
    """
    return {name: np.array(tensor) for name, tensor in read_safetensors(path).items()}


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """Map the tensors of a safetensors file into memory.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    dict of str to StoredTensor
        Views of the file, which are read when they are looked at.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptFileError
        If it is truncated, no safetensors file, says what cannot be true (offsets that overlap,
        leave gaps or lie outside, sizes that do not follow from the shape), or holds numbers of
        another type than booleans, integers, F16, BF16, F32 and F64.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "model.safetensors")
    ...     save_safetensors(file, {"weight": np.zeros((2, 3), np.float32)})
    ...     read_safetensors(file)
    {'weight': StoredTensor(f32, shape=(2, 3))}
    """
    data = map_file(path)
    if len(data) < LENGTH:
        raise CorruptFileError(f"{path}: truncated: {len(data)} bytes, the header's length takes 8")
    size = int.from_bytes(data[:LENGTH], "little")
    if size > LONGEST_HEADER or size > len(data) - LENGTH:
        raise CorruptFileError(
            f"{path}: truncated or not a safetensors file: a header of {size} bytes in a file of"
            f" {len(data)}"
        )
    body = data[LENGTH + size :]
    spans = []
    tensors: dict[str, StoredTensor] = {}
    for name, entry in _header(path, bytes(data[LENGTH : LENGTH + size])).items():
        if name == "__metadata__":
            continue
        kind, shape, start, stop = _entry(path, name, entry)
        if stop > len(body):
            raise CorruptFileError(
                f"{path}: truncated: {name!r} ends at byte {stop} of {len(body)} bytes of data"
            )
        spans.append((start, stop, name))
        tensors[name] = StoredTensor.within(body, kind, shape, start)
    end, last = 0, "the header"
    for start, stop, name in sorted(spans):
        if start != end:
            problem = "overlap" if start < end else "leave a gap between them"
            raise CorruptFileError(f"{path}: {last!r} and {name!r} {problem}")
        end, last = stop, name
    if end != len(body):
        raise CorruptFileError(f"{path}: {len(body) - end} bytes too many after {last!r}")
    return tensors


def _header(path: str | os.PathLike[str], text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name occurs twice")
        return found

    try:
        header = json.loads(text.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path}: not a safetensors file: its header: {error}") from None
    if not isinstance(header, dict):
        raise CorruptFileError(f"{path}: not a safetensors file: its header is no JSON object")
    return header


def _entry(
    path: str | os.PathLike[str], name: str, entry: Any
) -> tuple[str, tuple[int, ...], int, int]:
    """Kind, shape, start and stop of a tensor, all of them possible but the place in the file."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, stop]} if (
            all(type(number) is int and number >= 0 for number in (*shape, start, stop))
            and len(shape) <= MOST_DIMENSIONS
            and math.prod(filter(None, shape)) < 2**60
        ):
            pass
        case _:
            raise CorruptFileError(
                f"{path}: {name!r} must have a dtype, a shape and two offsets, got {entry!r:.200}"
            )
    if dtype not in KINDS:
        raise CorruptFileError(f"{path}: {name!r} is of the unsupported type {dtype!r:.40}")
    kind = KINDS[dtype]
    expected = math.prod(shape) * FORMATS[kind].size  # Python's integers never overflow
    if stop - start != expected:
        raise CorruptFileError(
            f"{path}: {name!r} of shape {shape!r:.100} takes {expected} bytes, its offsets {start}"
            f" and {stop} say {stop - start}"
        )
    return kind, tuple(shape), start, stop


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<")
