"""Learning-rate schedules: pure functions of how far the training is.

`step`, `total` and `warmup` share a unit, whichever it is: updates, seconds, or fractions of a
budget.
"""

from __future__ import annotations

import math

__all__ = ["constant", "linear", "linear_warmup_cosine"]


def linear_warmup_cosine(
    step: float, total: float, warmup: float, peak: float, floor: float = 0.0
) -> float:
    """Rise linearly from 0 to `peak`, then fall along half a cosine to `floor`.

    Parameters
    ----------
    step : float
        How far the training is. In updates: counted from 1, as 0 has learning rate 0.
    total : float
        Length of the schedule. Beyond it, the learning rate stays at `floor`.
    warmup : float
        Length of the rise; 0 starts at the peak.
    peak, floor : float
        Highest and last learning rate.

    Returns
    -------
    float
        The learning rate.

    Raises
    ------
    ValueError
        When step, total or warmup is negative or NaN.

    References
    ----------
    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    arXiv:1608.03983.

    Examples
    --------
    >>> [round(linear_warmup_cosine(step, 8, 2, peak=1.0, floor=0.2), 2) for step in range(10)]
    [0.0, 0.5, 1.0, 0.95, 0.8, 0.6, 0.4, 0.25, 0.2, 0.2]
    """
    _check(step, total, warmup)
    if step < warmup:
        return peak * step / warmup
    half_wave = 0.5 * (1 + math.cos(math.pi * _progress(step, total, warmup)))
    return floor + (peak - floor) * half_wave


def linear(step: float, total: float, warmup: float, peak: float, floor: float = 0.0) -> float:
    """Rise linearly from 0 to `peak`, then fall linearly to `floor`.

    Parameters
    ----------
    step, total, warmup, peak, floor
        As for `linear_warmup_cosine`.

    Returns
    -------
    float
        The learning rate.

    Raises
    ------
    ValueError
        As `linear_warmup_cosine`.

    Examples
    --------
    >>> [linear(step, 6, 2, peak=1.0) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    _check(step, total, warmup)
    if step < warmup:
        return peak * step / warmup
    return floor + (peak - floor) * (1 - _progress(step, total, warmup))


def constant(step: float, total: float, warmup: float, peak: float, floor: float = 0.0) -> float:
    """Rise linearly from 0 to `peak` and stay there.

    Parameters
    ----------
    step, total, warmup, peak, floor
        As for `linear_warmup_cosine`; `total` and `floor` are there for its signature alone.

    Returns
    -------
    float
        The learning rate.

    Raises
    ------
    ValueError
        As `linear_warmup_cosine`.

    Examples
    --------
    >>> [constant(step, 4, 2, peak=1.0) for step in range(4)]
    [0.0, 0.5, 1.0, 1.0]
    """
    _check(step, total, warmup)
    return peak * step / warmup if step < warmup else peak


def _check(step: float, total: float, warmup: float) -> None:
    for name, value in (("step", step), ("total", total), ("warmup", warmup)):
        if not value >= 0:
            raise ValueError(f"{name}: expected a number of at least 0, got {value!r}")


def _progress(step: float, total: float, warmup: float) -> float:
    """How far from the end of the warm-up to the end of the schedule, in [0, 1]."""
    return min(1.0, (step - warmup) / (total - warmup)) if total > warmup else 1.0
