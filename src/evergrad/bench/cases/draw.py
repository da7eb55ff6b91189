"""What the cases are drawn with."""

from __future__ import annotations

from typing import Any

import numpy as np

# Sizes around the widths of vectors (4, 8, 16 lanes) and of loops unrolled over several of them.
TAILS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 130)

# What a transcendental costs at least: range reduction and a polynomial, in multiplications and
# additions (Cody-Waite with three, degree six to eight, reconstruction).
EXP = 20

Generator = np.random.Generator


def normal(rng: Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return np.asarray(scale * rng.standard_normal(shape), np.float32)


def positive(rng: Generator, *shape: int) -> np.ndarray:
    return normal(rng, *shape) ** 2 + np.float32(1e-4)


def integers(rng: Generator, bound: int, *shape: int) -> np.ndarray:
    return np.asarray(rng.integers(0, bound, shape), np.int64)


def over(name: str, values: tuple[Any, ...], **fixed: Any) -> list[dict[str, Any]]:
    """The same dimensions with `name` going through `values`."""
    return [{**fixed, name: value} for value in values]


def pytorch() -> Any:
    import torch

    return torch
