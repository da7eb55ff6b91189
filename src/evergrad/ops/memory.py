"""Buffers from the pool that the outputs of ops come from."""

from __future__ import annotations

import numpy as np

from ..backends import active
from . import _check


def empty(shape: int | tuple[int, ...]) -> np.ndarray:
    """An uninitialised float32 array whose memory is recycled when the array dies.

    Pages of a fresh large allocation cost as much as a kernel; a recycled buffer has none to fault
    in. Outputs of all ops come from the same pool. It keeps up to a quarter of the memory of the
    machine, or of a container that has less, until `trim` gives it back.

    Parameters
    ----------
    shape : int or tuple of int

    Returns
    -------
    ndarray
        float32, C-contiguous, 64-byte aligned in the native backend.

    Raises
    ------
    ValueError
        For negative dimensions.
    MemoryError
        When the memory is not there.

    Examples
    --------
    >>> from evergrad import ops
    >>> ops.empty((2, 3)).shape
    (2, 3)
    """
    return active.empty(shape)


def zero_(x: np.ndarray) -> np.ndarray:
    """Set every element to 0, in place and on all threads.

    A gradient buffer was last written by several cores; one core alone would first have to fetch
    every line of it from the others.

    Parameters
    ----------
    x : ndarray, float32, contiguous and writable

    Returns
    -------
    ndarray
        ``x``.

    Raises
    ------
    TypeError, ValueError
        For a wrong type or dtype, a strided or read-only array.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> ops.zero_(np.ones(3, np.float32))
    array([0., 0., 0.], dtype=float32)
    """
    _check.floats("x", x)
    _check.output("x", x, x.shape, "x", x)
    active.zero_(x)
    return x


def trim() -> None:
    """Give the memory that is kept for the next outputs back to the system.

    For a program that is done with large arrays and lives on: ops that follow take fresh memory,
    which costs time.

    Examples
    --------
    >>> from evergrad import ops
    >>> ops.trim()
    """
    active.pool_trim()
