"""A model's weights in one safetensors file, or in several shards with an index."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from .atomic import atomic_files
from .errors import CorruptFileError
from .json_file import read_json, write_json
from .safetensors_file import check_tensors, read_safetensors, save_safetensors
from .stored import StoredTensor

__all__ = ["read_weights", "save_weights"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = "model-{:05d}-of-{:05d}.safetensors"

METADATA = {"format": "pt"}  # transformers refuses files that do not say so


def read_weights(folder: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """Map the weights in a folder into memory: model.safetensors, or the shards of its index.

    Parameters
    ----------
    folder : path-like
        The folder.

    Returns
    -------
    dict of str to StoredTensor
        Views of the files.

    Raises
    ------
    FileNotFoundError
        If there is neither file, or a shard is missing.
    CorruptFileError
        If a file cannot be read, the index names files outside the folder, or a shard holds other
        tensors than the index says.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(folder, {"weight": np.zeros((2, 3), np.float32)})
    ...     read_weights(folder)
    {'weight': StoredTensor(f32, shape=(2, 3))}
    """
    folder = Path(folder)
    if (folder / SINGLE).exists():
        return read_safetensors(folder / SINGLE)
    index = folder / INDEX
    if not index.exists():
        raise FileNotFoundError(f"{folder}: holds neither {SINGLE} nor {INDEX}")
    content = read_json(index)
    table = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise CorruptFileError(f"{index}: expected a weight_map from names to files")

    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(table.values())):
        # Whoever wrote the index must not be able to point to other files of the reader's.
        if shard in ("", ".", "..") or any(mark in shard for mark in "/\\:\0"):
            raise CorruptFileError(f"{index}: {shard!r} is no name of a file in this folder")
        if not (folder / shard).exists():
            raise FileNotFoundError(f"{folder / shard}: no such file, but {INDEX} names it")
        tensors.update(_shard(folder / shard, {name for name in table if table[name] == shard}))
    return tensors


def _shard(path: Path, expected: set[str]) -> dict[str, StoredTensor]:
    tensors = read_safetensors(path)
    for names, problem in (
        (expected - tensors.keys(), f"lacks tensors that {INDEX} says it holds"),
        (tensors.keys() - expected, f"holds tensors that {INDEX} does not say"),
    ):
        if names:
            raise CorruptFileError(f"{path}: {problem}: {', '.join(sorted(names)[:5])}")
    return tensors


def save_weights(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, npt.NDArray[Any]],
    max_shard_bytes: int | None = None,
) -> None:
    """Write weights as `read_weights` and Hugging Face's tools read them.

    All of them lie on the disk before they take the place of others, so that there has to be room
    for both. A process that is killed leaves the old weights, or the new ones. Only where shards
    replace others of the same names, that is, as many, there is a moment between their renames in
    which the folder has no index: killed in it, a process leaves a folder that readers refuse,
    never a mixture.

    Parameters
    ----------
    folder : path-like
        It must exist. Files of an earlier cut are removed last.
    tensors : mapping of str to ndarray
        In the order in which they fill the shards.
    max_shard_bytes : int, optional
        A shard ends before the tensor that would make it larger. Default: a single file.

    Raises
    ------
    ValueError
        If `max_shard_bytes` is no positive int.
    TypeError
        As `save_safetensors`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> weights = {name: np.zeros(4, np.float32) for name in "abc"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(folder, weights, max_shard_bytes=32)
    ...     print(*sorted(path.name for path in pathlib.Path(folder).iterdir()))
    model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json
    """
    if max_shard_bytes is not None and (
        not isinstance(max_shard_bytes, int) or max_shard_bytes <= 0
    ):
        raise ValueError(f"max_shard_bytes must be a positive int, got {max_shard_bytes!r}")
    check_tensors(folder, tensors)
    folder = Path(folder)
    shards: list[dict[str, npt.NDArray[Any]]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if max_shard_bytes is not None and shards[-1] and filled + tensor.nbytes > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes

    old = {path for path in folder.glob("model*.safetensors*") if _is_ours(path.name)}
    if len(shards) == 1:
        save_safetensors(folder / SINGLE, shards[0], METADATA)
        written = {folder / SINGLE}
    else:
        table: dict[str, str] = {}
        total = sum(tensor.nbytes for tensor in tensors.values())
        with atomic_files(folder, seal=INDEX) as made:
            for i, shard in enumerate(shards):
                name = SHARD.format(i + 1, len(shards))
                save_safetensors(made / name, shard, METADATA)
                table |= dict.fromkeys(shard, name)
            write_json(made / INDEX, {"metadata": {"total_size": total}, "weight_map": table})
        written = {folder / name for name in (INDEX, *table.values())}
    for path in old - written:
        path.unlink()


def _is_ours(name: str) -> bool:
    parts = name.removesuffix(".safetensors").split("-")
    is_shard = len(parts) == 4 and parts[0] == "model" and parts[2] == "of"
    return name in (SINGLE, INDEX) or is_shard
