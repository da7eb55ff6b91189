"""evergrad: transformer kernels for CPUs, and language models that keep learning.

``import evergrad`` loads the kernels alone; every other room (``nn``, ``models``, ``train``,
``continual`` ...) is imported when it is first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import ops
from ._version import __version__
from .backends import (
    available_backends,
    get_num_threads,
    num_threads,
    set_num_threads,
    show_config,
    use_backend,
)

if TYPE_CHECKING:
    from . import continual, datasets, io, models, nn, optim, tasks, text, train
    from .models import from_pretrained


__all__ = [
    "__version__",
    "available_backends",
    "continual",
    "datasets",
    "from_pretrained",
    "get_num_threads",
    "io",
    "models",
    "nn",
    "num_threads",
    "ops",
    "optim",
    "set_num_threads",
    "show_config",
    "tasks",
    "text",
    "train",
    "use_backend",
]

_LAZY = {"continual", "datasets", "io", "models", "nn", "optim", "tasks", "text", "train"}
_LAZY_FUNCTIONS = {"from_pretrained": "models"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    if name in _LAZY_FUNCTIONS:
        return getattr(importlib.import_module(f".{_LAZY_FUNCTIONS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | _LAZY | _LAZY_FUNCTIONS.keys())
