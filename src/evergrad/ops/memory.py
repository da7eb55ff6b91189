"""Buffers from the pool that the outputs of ops come from."""

from __future__ import annotations

import numpy as np

from ..backends import active


def empty(shape: int | tuple[int, ...]) -> np.ndarray:
    """An uninitialised float32 array whose memory is recycled when the array dies.

    Pages of a fresh large allocation cost as much as a kernel; a recycled buffer has none to fault
    in.

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
