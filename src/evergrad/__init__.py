"""evergrad: transformer kernels for CPUs, and language models that keep learning.

``import evergrad`` loads the kernels alone; every other room (``nn``, ``models``, ``train``,
``continual`` ...) is imported when it is first touched.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ._lazy import lazily
from ._version import __version__

if TYPE_CHECKING:
    from . import continual, datasets, io, models, nn, ops, optim, tasks, text, train
    from .backends import (
        available_backends,
        get_num_threads,
        num_threads,
        set_num_threads,
        show_config,
        use_backend,
    )
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
    _KERNELS = (
        "available_backends", "get_num_threads", "num_threads", "set_num_threads", "show_config",
        "use_backend",
    )  # fmt: skip
    _ROOMS = ("continual", "datasets", "io", "nn", "ops", "optim", "tasks", "text", "train")
    __getattr__, __dir__ = lazily(
        __name__,
        {"backends": _KERNELS, "models": ("from_pretrained",), **dict.fromkeys(_ROOMS, ())},
    )
    # The command line (`-m` while Python looks for it, or its script's name) loads the kernels
    # itself, since it has a line for what goes wrong in that, and for Ctrl-C.
    _program = (getattr(sys, "argv", None) or [""])[0]  # embedded, Python may have none
    if os.path.basename(_program) not in ("-m", "evergrad"):
        for _name in ("ops", *_KERNELS):
            __getattr__(_name)
