"""What happened in a training run: numbers, file, picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evergrad import io

# Columns of every step; all others are scores of an evaluation.
STEP_COLUMNS = ("step", "seconds", "tokens", "loss", "lr", "grad_norm")


@dataclass
class History:
    """The rows of a training run.

    Parameters
    ----------
    label : str
        What was trained.
    rows : list of dict
        One per step: ``step`` (from 1), ``seconds`` (of training so far), ``tokens`` (so far),
        ``loss`` (nats per token), ``lr``, ``grad_norm`` (before clipping), and after an evaluation
        its scores. The evaluation before the first step is a row with ``step`` 0 and no loss.

    Examples
    --------
    >>> history = History("tiny")
    >>> history.rows.append({"step": 0, "seconds": 0.0, "tokens": 0, "prose": 8.0})
    >>> history.scores()
    {'prose': [(0, 8.0)]}
    """

    label: str = "train"
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def scores(self) -> dict[str, list[tuple[int, float]]]:
        """Every score by name, as (step, value) in order."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.rows:
            for name, value in row.items():
                if name not in STEP_COLUMNS:
                    found.setdefault(name, []).append((row["step"], value))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the history as JSON, atomically.

        Parameters
        ----------
        path : path-like
            The file; an existing one is replaced.
        """
        io.write_json(path, {"label": self.label, "rows": self.rows})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> History:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        History
            Equal to the saved one.

        Raises
        ------
        FileNotFoundError, io.CorruptFileError
            If the file is missing, truncated, or no history.
        """
        value = io.read_json(path)
        if not isinstance(value, dict) or not {"label", "rows"} <= value.keys():
            raise io.CorruptFileError(f"{path}: no training history: label or rows are missing")
        return cls(value["label"], value["rows"])

    def plot(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        score_label: str = "held-out text [bits per byte]",
    ) -> None:
        """Draw the learning curve.

        Parameters
        ----------
        path : path-like
            The picture, in the format of its suffix (``.png``, ``.svg``, ``.pdf``); an existing one
            is replaced when the new one is whole.
        title : str, optional
            By default the label and what was spent.
        score_label : str
            Axis label of the evaluations.

        Raises
        ------
        ImportError
            If `matplotlib` is missing.
        ValueError
            If there are no rows.
        """
        try:
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ImportError as error:
            raise ImportError(
                "the package `matplotlib` is needed for pictures: pip install 'evergrad[plot]'"
            ) from error
        if not self.rows:
            raise ValueError("History.plot: nothing was recorded yet")

        steps = np.array([row["step"] for row in self.rows if "loss" in row])
        loss = np.array([row["loss"] for row in self.rows if "loss" in row])
        scores = self.scores()
        panels = bool(scores) + (len(loss) > 0)
        figure = Figure(figsize=(7.2, 0.8 + 2.7 * panels), layout="constrained", dpi=120)
        axes = list(np.atleast_1d(figure.subplots(panels, 1, sharex=True)))
        if len(loss):
            axis = axes[0]
            smooth, width = _smoothed(loss)
            if width > 1:
                axis.plot(steps, loss, color="C7", alpha=0.35, linewidth=0.8, label="each step")
            name = f"mean of {width} steps" if width > 1 else "each step"
            middle = steps[width // 2 : width // 2 + len(smooth)]
            axis.plot(middle, smooth, color="0.2", linewidth=1.6, label=name)
            axis.set_ylabel("training loss [nats per token]")
        if scores:
            axis = axes[-1]
            for name, points in scores.items():
                at, values = zip(*points, strict=True)
                name = f"{name}: {values[0]:.3f} to {values[-1]:.3f}"
                if min(values) < values[-1]:
                    name += f", best {min(values):.3f}"
                axis.plot(at, values, marker="o", markersize=3.5, linewidth=1.6, label=name)
            axis.set_ylabel(score_label)
        for axis in axes:
            axis.grid(alpha=0.25)
            axis.legend(frameon=False)
            axis.spines[["top", "right"]].set_visible(False)
        axes[-1].set_xlabel("optimizer step")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.align_ylabels(axes)
        last = self.rows[-1]
        spent = f"{last['step']:,} steps, {last['tokens']:,} tokens, {last['seconds']:.0f} s"
        figure.suptitle(title or f"{self.label} ({spent})")
        io.write_picture(path, figure)


def _smoothed(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Running mean over a fortieth of the run, and how many values that is."""
    width = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[width:] - sums[:-width]) / width, width
