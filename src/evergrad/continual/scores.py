"""The matrix of scores R, which grows by a row per stage and a column per domain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import metrics

__all__ = ["ScoreMatrix"]


@dataclass
class ScoreMatrix:
    """R[i][j]: the score on domain j after stage i. Row 0 is the untrained model.

    Scores are **bits per byte, negated**, so that higher is better as the metrics expect. NaN marks
    what was not measured.

    Attributes
    ----------
    domains : list of str
        The columns.
    stages : list of str
        The rows: ``"untrained"``, then a label per stage.
    learned : list of str or None
        The domain that each stage learned; None for the first row, and where it is not known.
    rows : list of dict of str to float
        Domain -> score, for what was measured.

    Examples
    --------
    >>> scores = ScoreMatrix()
    >>> scores.add("untrained", None, {"prose": 3.5, "code": 4.0})
    >>> scores.add("0001 prose", "prose", {"prose": 2.0, "code": 3.5})
    >>> scores.add("0002 code", "code", {"prose": 2.2, "code": 2.5})
    >>> scores.array()
    array([[-3.5, -4. ],
           [-2. , -3.5],
           [-2.2, -2.5]])
    >>> round(scores.summary()["forgetting_last"], 6)
    0.2
    """

    domains: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    learned: list[str | None] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, stage: str, learned: str | None, bits_per_byte: Mapping[str, float]) -> None:
        """Append a stage with what was measured after it."""
        if learned is not None and not self.stages:
            raise ValueError(f"learned: the first row is the untrained model, got {learned!r}")
        self.stages.append(stage)
        self.learned.append(learned)
        self.rows.append({})
        self.measure(len(self.stages) - 1, bits_per_byte)

    def measure(self, row: int, bits_per_byte: Mapping[str, float]) -> None:
        """Enter measurements into a row; domains not seen before become columns."""
        self.rows[row].update({domain: -float(value) for domain, value in bits_per_byte.items()})
        self.domains.extend(domain for domain in bits_per_byte if domain not in self.domains)

    def array(self) -> np.ndarray:
        """The matrix, float64 [stages, domains]."""
        return np.array(
            [[row.get(domain, math.nan) for domain in self.domains] for row in self.rows],
            np.float64,
        ).reshape(len(self.rows), len(self.domains))

    def summary(self) -> dict[str, float]:
        """ACC, BWT, FWT and both conventions of forgetting: see ``metrics.summary``."""
        columns = [
            self.domains.index(domain) if domain in self.domains else None
            for domain in self.learned
        ]
        return metrics.summary(self.array(), columns)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what was not measured becomes ``None``."""
        return {
            "unit": "bits per byte, negated: higher is better",
            "domains": list(self.domains),
            "stages": list(self.stages),
            "learned": list(self.learned),
            "scores": [[row.get(domain) for domain in self.domains] for row in self.rows],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ScoreMatrix:
        """The inverse of ``to_dict``."""
        rows = [
            {
                domain: float(score)
                for domain, score in zip(value["domains"], scores, strict=True)
                if score is not None
            }
            for scores in value["scores"]
        ]
        return cls(list(value["domains"]), list(value["stages"]), list(value["learned"]), rows)
