"""Files that are either whole or absent, and files of others: JSON, safetensors, GGUF."""

from __future__ import annotations

from .atomic import atomic_file, atomic_folder, clean_leftovers, remove_folder, write_atomic
from .errors import CorruptFileError
from .gguf_file import GGUF, read_gguf
from .json_file import JsonObject, plain, read_json, write_json
from .picture import write_picture
from .safetensors_file import load_safetensors, read_safetensors, save_safetensors
from .sharded import read_weights, save_weights
from .stored import StoredTensor, release

__all__ = [
    "GGUF",
    "CorruptFileError",
    "JsonObject",
    "StoredTensor",
    "atomic_file",
    "atomic_folder",
    "clean_leftovers",
    "load_safetensors",
    "plain",
    "read_gguf",
    "read_json",
    "read_safetensors",
    "read_weights",
    "release",
    "remove_folder",
    "save_safetensors",
    "save_weights",
    "write_atomic",
    "write_json",
    "write_picture",
]
