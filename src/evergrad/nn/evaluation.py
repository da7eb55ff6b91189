"""evaluating: evaluation mode for the length of a block, whoever else evaluates meanwhile."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

from .module import Module, below

__all__ = ["evaluating"]

#: Of each module that somebody evaluates: how many do, and the mode that it goes back to.
_evaluated: WeakKeyDictionary[Any, tuple[int, bool]] = WeakKeyDictionary()
_ended: deque[list[Any]] = deque()  # modules of blocks that are over, to be given back
_lock = RLock()
_holder: int | None = None  # the thread inside _alone()
# A thread that holds the lock does not live on in a forked child, which would wait for it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode for the length of a ``with`` block; several may overlap, in any order.

    Parameters
    ----------
    model : Module
        It and all below it get their modes back, each its own, when the last of them ends. What
        is no Module has `training` and `train(mode)` itself.

    Examples
    --------
    >>> from evergrad import nn
    >>> layer = nn.Dropout(0.5)
    >>> with nn.evaluating(layer):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    parts = [part for part in below(model) if isinstance(part, Module)] or [model]
    with _alone():
        if not _evaluated and not any(part.training for part in parts):
            parts = []  # as it was: nothing to give back
        for part in parts:
            count, mode = _evaluated.get(part, (0, part.training))
            _evaluated[part] = count + 1, mode
            _set_mode(part, False)
    _give_back()
    try:
        yield
    finally:
        _ended.append(parts)
        # Garbage collection may end a forgotten stream, and its block, while this thread is in
        # `_alone`: what is there looks for it before it leaves.
        if _holder != get_ident():
            _give_back()


def _give_back() -> None:
    while _ended:
        with _alone():
            while _ended:
                for part in _ended.popleft():
                    # Nobody knows a module any more that is collected with what evaluates it.
                    count, mode = _evaluated.pop(part, (1, False))
                    if count > 1:
                        _evaluated[part] = count - 1, mode
                    else:
                        _set_mode(part, mode)


@contextmanager
def _alone() -> Iterator[None]:
    global _holder
    with _lock:
        outer, _holder = _holder, get_ident()
        try:
            yield
        finally:
            _holder = outer


def _set_mode(part: Any, mode: bool) -> None:
    if part.training == mode:
        return
    if isinstance(part, Module):
        part.training = mode
    else:
        part.train(mode)
