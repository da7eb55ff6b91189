"""Temporary arrays: float32 from the buffer pool, other dtypes (gradient checks) from NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import ops

Array = npt.NDArray[Any]


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> Array:
    return ops.empty(shape) if dtype == np.float32 else np.empty(shape, dtype)
