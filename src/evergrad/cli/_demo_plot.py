"""The demo's picture: both domains over training time, a panel for each stage."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS = {"prose": "#1f5fa8", "code": "#c8511b"}


def plot_stages(
    path: str | os.PathLike[str],
    stages: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
    reference: float,
) -> None:
    """Draw held-out bits per byte against seconds of training.

    Parameters
    ----------
    path : path-like
        The picture, in the format of its suffix.
    stages : sequence of (title, rows)
        The first is the base, the others start from where it ended. Rows are those of
        ``train.History``.
    reference : float
        Prose right after it was learned: a line through the later panels, below which nothing is
        forgotten.

    Raises
    ------
    ImportError
        If `matplotlib` is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "the package `matplotlib` is needed for the picture: pip install 'evergrad[plot]'"
        ) from error

    lengths = [rows[-1]["seconds"] for _, rows in stages]
    figure = Figure(figsize=(10, 4.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(stages), sharey=True, width_ratios=lengths)
    start = 0.0
    for index, (panel, (title, rows)) in enumerate(zip(panels, stages, strict=True)):
        for name, colour in COLOURS.items():
            points = [(start + row["seconds"], row[name]) for row in rows if name in row]
            seconds, values = zip(*points, strict=True)
            panel.plot(seconds, values, color=colour, linewidth=2, marker="o", markersize=3)
            panel.annotate(
                f"{values[-1]:.2f}",
                (seconds[-1], values[-1]),
                xytext=(0, 7),
                textcoords="offset points",
                ha="right",
                color=colour,
                fontweight="bold",
            )
        panel.set_title(title, loc="left", fontsize=10.5)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.25)
        panel.set_xlabel("training time [s]")
        if index == 0:
            start = lengths[0]
        else:
            panel.axhline(reference, color=COLOURS["prose"], linestyle=":", linewidth=1.2)
    figure.savefig(path)
