"""Packages whose names are loaded when they are first asked for: a program should begin at once."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any


def lazily(
    package: str, files: Mapping[str, Collection[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Parameters
    ----------
    package : str
        Its ``__name__``.
    files : mapping of str to collection of str
        For each file, or package in it, the names that the package offers of it, beside the file
        itself. None of them is a file's own name, which stands for the file.

    Examples
    --------
    >>> find, names = lazily("evergrad", {"models": ["from_pretrained"], "io": []})
    >>> find("io").read_gguf.__name__, names()[-1]
    ('read_gguf', 'use_backend')
    """
    origin = {name: file for file, names in files.items() for name in names}

    def find(name: str) -> Any:
        if name in files:
            return importlib.import_module(f".{name}", package)
        if name not in origin:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f".{origin[name]}", package), name)
        setattr(sys.modules[package], name, found)  # asked once
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *origin, *files})

    return find, names
