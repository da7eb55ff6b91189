"""Named arrays in the safetensors format (a JSON header, then raw little-endian data)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType

import numpy as np

from .atomic import write_atomic
from .errors import CorruptFileError


def save_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays to a safetensors file, atomically.

    Parameters
    ----------
    path : path-like
        The file; an existing one is replaced.
    tensors : mapping of str to ndarray
        Arrays of any shape (0-d and empty too), numeric or boolean dtype, any strides.
    metadata : mapping of str to str, optional
        Kept in the header.

    Raises
    ------
    ImportError
        If the `safetensors` package is missing.
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
    package = _safetensors()
    arrays = {}
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"{path}: tensor names must be str, got {name!r}")
        if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind not in "biuf":
            kind = getattr(value, "dtype", type(value).__name__)
            raise TypeError(f"{path}: tensor {name!r} must be a numeric array, got {kind}")
        arrays[name] = np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C")
    for key, text in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"{path}: metadata must map str to str, got {key!r}: {text!r}")
    write_atomic(path, package.numpy.save(arrays, metadata=dict(metadata) if metadata else None))


def load_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read every array of a safetensors file.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    dict of str to ndarray
        Fresh, writable, C-contiguous arrays in the dtype of the file.

    Raises
    ------
    ImportError
        If the `safetensors` package is missing.
    FileNotFoundError
        If there is no such file.
    CorruptFileError
        If it is truncated, no safetensors file, or holds a dtype that NumPy lacks.

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
    package = _safetensors()
    with open(path, "rb"):  # the system's own error when it is missing or not readable
        pass
    try:
        tensors = package.numpy.load_file(os.fspath(path))
    except (TypeError, KeyError, AttributeError) as error:
        raise CorruptFileError(
            f"{path}: a tensor has a dtype without NumPy form: {error}"
        ) from error
    except package.SafetensorError as error:
        raise CorruptFileError(f"{path}: truncated or not a safetensors file: {error}") from error
    return {
        name: value if value.flags.writeable else value.copy() for name, value in tensors.items()
    }


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "the package `safetensors` is needed to read and write model files:"
            " pip install evergrad[train]"
        ) from error
    return safetensors
