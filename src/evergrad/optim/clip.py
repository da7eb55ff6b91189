"""Clipping of the gradient's norm."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from .. import ops

__all__ = ["clip_scale"]


def clip_scale(grad: npt.NDArray[Any], max_norm: float | None) -> tuple[float, float]:
    """Measure a gradient, and say by what to multiply it so that its norm is at most `max_norm`.

    Nothing is written: the factor goes to `Optimizer.step(grad_scale=...)`, which reads the
    gradient anyway.

    Parameters
    ----------
    grad : ndarray
        1-D: `model.flat.grad`.
    max_norm : float or None
        None: measure only.

    Returns
    -------
    norm : float
        Euclidean norm.
    scale : float
        ``min(1, max_norm / (norm + 1e-6))``; NaN where the norm is NaN: nothing hides it.

    Raises
    ------
    ValueError
        When max_norm is not positive.

    References
    ----------
    Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013,
    arXiv:1211.5063.

    Examples
    --------
    >>> import numpy as np
    >>> norm, scale = clip_scale(np.array([3.0, 4.0], np.float32), max_norm=1.0)
    >>> norm, round(scale, 5)
    (5.0, 0.2)
    """
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"max_norm must be > 0, got {max_norm}")
    norm = ops.grad_norm(grad)
    if max_norm is None:
        return norm, 1.0
    scale = max_norm / (norm + 1e-6)
    return norm, scale if not scale >= 1 else 1.0
