"""What a command makes at its beginning, and keeps to its end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["lasting"]


@contextmanager
def lasting() -> Iterator[None]:
    """Make modules, or a vocabulary, without a look for garbage among them, now or later.

    They are hundreds of thousands of objects. The collector would walk over them a few times while
    they grow, and once more when the process ends: a tenth of the time to a first token. All that
    the process holds by the end of the block lasts: this is for the beginning of a command.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
