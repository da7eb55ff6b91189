"""What a training run is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings of `fit`.

    The budget is a number of steps, a time, or both: training ends when the first runs out. The
    learning rate follows the fraction of the budget that is used, ``max(step / steps, elapsed /
    seconds)``, so that the schedule ends where the training does.

    Parameters
    ----------
    steps : int, optional
        Optimizer steps.
    seconds : float, optional
        Time spent in training steps; evaluations and checkpoints do not count.
    batch_size : int
        Sequences of a micro-batch.
    window : int
        Tokens of a sequence.
    lr : float
        Peak learning rate.
    min_lr_ratio : float
        Final learning rate, as a fraction of `lr`.
    warmup : float
        Fraction of the budget over which the learning rate rises from 0, in [0, 1).
    weight_decay : float
        Decoupled, on matrices only.
    betas : pair of float
        Decay rates of AdamW's averages.
    clip : float, optional
        Largest norm of the gradient; None does not clip.
    accumulate : int
        Micro-batches of a step. The gradient is that of one batch that holds them all.
    seed : int
        Of what is sampled.
    eval_every : int, optional
        Steps between evaluations. There is one before the first step and one after the last in any
        case.
    patience : int, optional
        Stop after so many evaluations without a new best; the best parameters are restored.
    monitor : str, optional
        The score (lower is better) that `patience` watches; by default the first one.
    checkpoint_every : int, optional
        Steps between checkpoints. There is one at the end in any case.

    Raises
    ------
    TypeError, ValueError
        If a value is of the wrong kind or out of range; the message names it.

    Examples
    --------
    >>> FitConfig(steps=100, lr=3e-3).batch_size
    16
    >>> FitConfig(steps=0)
    Traceback (most recent call last):
    ValueError: FitConfig: steps must be an int of at least 1, got 0
    """

    steps: int | None = None
    seconds: float | None = None
    batch_size: int = 16
    window: int = 128
    lr: float = 3e-3
    min_lr_ratio: float = 0.1
    warmup: float = 0.05
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = 1.0
    accumulate: int = 1
    seed: int = 0
    eval_every: int | None = None
    patience: int | None = None
    monitor: str | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("FitConfig: give a budget: steps, seconds, or both")
        for name in ("steps", "eval_every", "patience", "checkpoint_every"):
            if getattr(self, name) is not None:
                _check_int(name, getattr(self, name), 1)
        for name in ("batch_size", "window", "accumulate"):
            _check_int(name, getattr(self, name), 1)
        _check_int("seed", self.seed, 0)
        if self.seconds is not None:
            _check_float("seconds", self.seconds, lambda x: x > 0, "above 0")
        _check_float("lr", self.lr, lambda x: x > 0, "above 0")
        _check_float("min_lr_ratio", self.min_lr_ratio, lambda x: 0 <= x <= 1, "in [0, 1]")
        _check_float("warmup", self.warmup, lambda x: 0 <= x < 1, "in [0, 1)")
        _check_float("weight_decay", self.weight_decay, lambda x: x >= 0, "at least 0")
        if self.clip is not None:
            _check_float("clip", self.clip, lambda x: x > 0, "above 0, or None")
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise ValueError(f"FitConfig: betas must be a pair, got {self.betas!r}")
        for beta in self.betas:
            _check_float("betas", beta, lambda x: 0 <= x < 1, "in [0, 1)")
        if self.patience is not None and self.eval_every is None:
            raise ValueError("FitConfig: patience counts evaluations, so it needs eval_every")

    def fraction(self, step: int, seconds: float) -> float:
        """Fraction of the budget that `step` steps in `seconds` have used; 1 or more is all.

        Parameters
        ----------
        step : int
            Steps done.
        seconds : float
            Time spent in them.

        Returns
        -------
        float
            The larger of the two fractions.

        Examples
        --------
        >>> FitConfig(steps=100, seconds=10).fraction(20, 5.0)
        0.5
        """
        by_step = 0.0 if self.steps is None else step / self.steps
        by_time = 0.0 if self.seconds is None else seconds / self.seconds
        return max(by_step, by_time)


def _check_int(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"FitConfig: {name} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"FitConfig: {name} must be an int of at least {least}, got {value}")


def _check_float(name: str, value: Any, fits: Callable[[float], bool], wanted: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"FitConfig: {name} must be a number, got {type(value).__name__}")
    value = float(value)
    if not fits(value) or not math.isfinite(value):
        raise ValueError(f"FitConfig: {name} must be finite and {wanted}, got {value}")
