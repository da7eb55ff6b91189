"""The demo's picture: both domains over training time, a panel for each stage."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from evergrad import io

COLOURS = {"prose": "#1f5fa8", "code": "#c8511b"}


def plot_stages(
    path: str | os.PathLike[str],
    stages: Sequence[tuple[str, Sequence[Mapping[str, Any]]]],
) -> None:
    """Draw held-out bits per byte against seconds of training.

    A line through the later panels is where the first one's prose ended: below it nothing is
    forgotten.

    Parameters
    ----------
    path : path-like
        The picture, in the format of its suffix.
    stages : sequence of (title, rows)
        The first is the base, the others start from where it ended. Rows are those of
        ``train.History``.

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
    # A stage is as wide as it is long, but never too narrow for its title.
    widths = [max(length, 0.5 * max(lengths)) for length in lengths]
    figure = Figure(figsize=(11, 4.8), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(stages), sharey=True, width_ratios=widths)
    start = learned = 0.0
    for index, (panel, (title, rows)) in enumerate(zip(panels, stages, strict=True)):
        last = {name: [row[name] for row in rows if name in row][-1] for name in COLOURS}
        for name, colour in COLOURS.items():
            points = [(start + row["seconds"], row[name]) for row in rows if name in row]
            seconds, values = zip(*points, strict=True)
            panel.plot(
                seconds, values, color=colour, linewidth=2, marker="o", markersize=3.5, label=name
            )
            panel.annotate(
                f"{values[-1]:.2f}",
                (seconds[-1], values[-1]),
                xytext=(6, 0),
                textcoords="offset points",
                # Away from one another: curves that end side by side keep both numbers legible.
                va="bottom" if name == max(COLOURS, key=last.__getitem__) else "top",
                color=colour,
                fontweight="bold",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},  # over the dotted line
                annotation_clip=False,
            )
        if index > 0:
            panel.axhline(
                learned,
                color=COLOURS["prose"],
                linestyle=":",
                linewidth=1.4,
                label="prose as it was learned",
            )
        panel.set_title(f"{index + 1}. {title}", loc="left", fontsize=11)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.25)
        panel.set_xlabel("training time [s]" + (", from version 0001" if index else ""))
        panel.margins(x=0.1 if index else 0.06)
        if index == 0:
            start, learned = lengths[0], last["prose"]
    panels[0].set_ylabel("held-out text [bits per byte], lower is better")
    panels[1].legend(frameon=False, loc="upper right")
    figure.suptitle("What a small language model learns, and what it forgets", fontsize=13)
    io.write_picture(path, figure)
