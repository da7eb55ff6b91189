"""Files that are either whole or absent: atomic writes, JSON, safetensors."""

from __future__ import annotations

from .atomic import atomic_folder, clean_leftovers, remove_folder, write_atomic
from .errors import CorruptFileError
from .json_file import read_json, write_json
from .safetensors_file import load_safetensors, save_safetensors

__all__ = [
    "CorruptFileError",
    "atomic_folder",
    "clean_leftovers",
    "load_safetensors",
    "read_json",
    "remove_folder",
    "save_safetensors",
    "write_atomic",
    "write_json",
]
