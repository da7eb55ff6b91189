"""evergrad: transformer kernels for CPUs, and language models that keep learning.

``import evergrad`` loads the kernels alone; every other room (``nn``, ``models``, ``train``,
``continual`` ...) is imported when it is first touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import ops
from ._lazy import lazily
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

if not TYPE_CHECKING:
    _ROOMS = ("continual", "datasets", "io", "nn", "optim", "tasks", "text", "train")
    __getattr__, __dir__ = lazily(
        __name__, {"models": ("from_pretrained",), **dict.fromkeys(_ROOMS, ())}
    )
