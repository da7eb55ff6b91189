"""What a stage of learning did: the record that every version carries."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .scores import ScoreMatrix

__all__ = ["Report"]


@dataclass
class Report:
    """How a version came about, what it gained and what it forgot.

    Attributes
    ----------
    kind : {"train", "adapt"}
        The first version of a store, or one adapted from another.
    domain : str
        What was learned.
    retained : list of str
        What must not be forgotten.
    before, after : dict of str to float
        Bits per byte on the held-out part of every domain; lower is better.
    scores : ScoreMatrix
        R[i][j] over all stages since the untrained model, bits per byte negated.
    metrics : dict of str to float
        ``acc``, ``bwt``, ``fwt``, ``forgetting_last``, ``forgetting_max``, from ``scores``.
    accepted : bool
        The gate's verdict.
    reasons : list of str
        Why it was rejected; empty when it was not.
    gate, strategy, config : dict
        The settings of the gate, of the strategy and of ``train.fit``.
    seconds : dict of str to float
        Wall time: ``train``, of all processes of a resumed run, and ``total``, of the last one.
    history : list of dict
        The rows of ``train.History``.
    version, parent : str or None
        Filled in by the store.
    """

    kind: str
    domain: str
    retained: list[str]
    before: dict[str, float]
    after: dict[str, float]
    scores: ScoreMatrix
    accepted: bool = True
    reasons: list[str] = field(default_factory=list)
    gate: dict[str, Any] = field(default_factory=dict)
    strategy: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    version: str | None = None
    parent: str | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """ACC, BWT, FWT and both conventions of forgetting."""
        return self.scores.summary()

    @property
    def progress(self) -> float:
        """Gain on the new domain as a fraction: ``1 - after / before`` in bits per byte."""
        return -self.worsening(self.domain)

    @property
    def forgetting(self) -> dict[str, float]:
        """Retained domain -> relative worsening in bits per byte; below 0: it improved."""
        return {name: self.worsening(name) for name in self.retained}

    def worsening(self, domain: str) -> float:
        """``after / before - 1`` in bits per byte; infinite when there were none before.

        From none to none it is 0.
        """
        before, after = self.before[domain], self.after[domain]
        if before == 0:
            return after * math.inf if after != 0 else 0.0
        return after / before - 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; a number that is not finite, such as an undefined metric, becomes ``None``."""
        plain = {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            if entry.name != "scores"
        }
        return _without_nan(
            {
                **plain,
                "scores": self.scores.to_dict(),
                "metrics": self.metrics,
                "progress_percent": 100 * self.progress,
                "forgetting_percent": {
                    name: 100 * value for name, value in self.forgetting.items()
                },
            }
        )

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Report:
        """The inverse of ``to_dict``; what a later version of evergrad added is ignored.

        A measured number that became ``None`` comes back as NaN.
        """
        known = {entry.name for entry in dataclasses.fields(cls)}
        settings = {key: item for key, item in value.items() if key in known}
        for name in ("before", "after", "seconds"):
            if name in settings:
                settings[name] = {
                    key: math.nan if item is None else item for key, item in settings[name].items()
                }
        return cls(**{**settings, "scores": ScoreMatrix.from_dict(value["scores"])})


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    number = isinstance(value, (float, np.floating))
    return None if number and not math.isfinite(value) else value
