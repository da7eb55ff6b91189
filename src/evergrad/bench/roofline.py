"""The roofline: what each op reaches, beneath what arithmetic and memory of this machine allow.

Williams, Waterman & Patterson, "Roofline: an insightful visual performance model for multicore
architectures", 2009. Across: operations for each byte that must move. Upwards: operations a second.
An op can stand no higher than the slope (all bytes at full bandwidth) and the ceiling (every
multiply-add unit busy), unless its arrays stay in cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evergrad import io
from evergrad.bench.measure import Limits
from evergrad.bench.run import Result

# Okabe & Ito's colours first, which people with any kind of colour vision tell apart.
COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5195", "#56b4e9", "#b8860b", "#444444",
    "#e69f00", "#8c1515", "#4d7c0f", "#d946ef", "#00b3b3", "#8f8f00", "#ff7f7f",
)  # fmt: skip

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels


def draw(results: Sequence[Result], title: str, path: Path) -> None:
    """A dot for every call, a name for the first case of each op, forward and backward."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [r for r in results if r.limits is not None and r.flops > 0]
    if not shown:
        raise ValueError("nothing to plot: without the native module no limit was measured")
    limits = shown[0].limits
    assert limits is not None
    figure = Figure(figsize=(13, 8.5), dpi=140, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")

    where = {id(r): (r.flops / r.bytes, _rate(r)) for r in shown}
    across, up = np.array(list(where.values())).T
    axes.set_xlim(across.min() / 2.2, across.max() * 2.2)
    axes.set_ylim(up.min() / 2.5, limits.flops * 3)
    roof = _roof(limits, axes.get_xlim())
    axes.plot(*roof.T, color="black", linewidth=1.6, zorder=2)
    axes.fill_between(roof[:, 0], roof[:, 1], axes.get_ylim()[1], color="#f3f3f3", zorder=0)
    _name_the_roof(axes, limits)

    families = list(dict.fromkeys(r.family for r in shown))
    colors = dict(zip(families, itertools.cycle(COLORS)))
    named = _first_of_each(shown)
    for r in shown:
        main, color = r in named, colors[r.family]
        axes.scatter(
            *where[id(r)],
            s=46 if main else 14,
            facecolors="white" if r.backward else color,
            edgecolors=color,
            linewidths=1.4 if main else 0.8,
            alpha=1.0 if main else 0.45,
            zorder=4 if main else 3,
        )
    _legend(axes, colors)
    axes.set_xlabel("operations per byte of memory that must move")
    axes.set_ylabel("operations per second")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1e9:g} G")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color="#e4e4e4", linewidth=0.6, zorder=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10, loc="left")

    canvas.draw()  # from here on the layout stays, so that pixels are what they will be
    figure.set_layout_engine("none")
    dots = np.array([axes.transData.transform(where[id(r)]) for r in shown])
    line = axes.transData.transform(_along(roof))
    taken = [_around(dot, 4.5, 4.5) for dot in dots] + [_around(point, 3, 3) for point in line]
    taken += [_box(text, canvas) for text in (*axes.texts, axes.get_legend())]
    for r in sorted(named, key=lambda r: where[id(r)]):
        _write(axes, canvas, r, where[id(r)], colors[r.family], taken)
    io.write_picture(path, figure)


def _rate(result: Result) -> float:
    return result.flops / result.timings[result.ours].median


def _roof(limits: Limits, ends: tuple[float, float]) -> np.ndarray:
    """Its corners as [3, 2]."""
    ridge = limits.flops / limits.bandwidth
    corners = (ends[0], min(max(ridge, ends[0]), ends[1]), ends[1])
    return np.array([(x, min(limits.flops, x * limits.bandwidth)) for x in corners])


def _along(line: np.ndarray) -> np.ndarray:
    """Points along a line through these corners, evenly spaced on logarithmic axes."""
    logs = np.log(line)
    parts = [np.linspace(a, b, 150) for a, b in itertools.pairwise(logs)]
    return np.exp(np.concatenate(parts))


def _name_the_roof(axes: Any, limits: Limits) -> None:
    style: dict[str, Any] = dict(fontsize=9, color="black", va="bottom")
    right = axes.get_xlim()[1]
    text = f"{limits.flops / 1e9:.0f} Gflop/s: multiply-adds, {limits.threads} threads"
    axes.text(right * 0.97, limits.flops * 1.06, text, ha="right", **style)
    low = max(axes.get_xlim()[0], axes.get_ylim()[0] / limits.bandwidth) * 1.15
    start = np.array([low, low * limits.bandwidth])
    (x0, y0), (x1, y1) = axes.transData.transform([start, start * 2])
    angle = math.degrees(math.atan2(y1 - y0, x1 - x0))
    text = f"{limits.bandwidth / 1e9:.0f} GB/s: reading memory"
    axes.text(
        *(start * (1, 1.12)), text, rotation=angle, rotation_mode="anchor", ha="left", **style
    )

    axes.text(
        0.012, 0.975, "above the line: arrays that stay in cache", transform=axes.transAxes,
        ha="left", va="top", fontsize=8, color="#777777",
    )  # fmt: skip


def _legend(axes: Any, colors: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    def dot(label: str, edge: str, face: str) -> Line2D:
        style: dict[str, Any] = dict(marker="o", linestyle="", markersize=7)
        return Line2D([], [], label=label, markeredgecolor=edge, markerfacecolor=face, **style)

    handles = [dot(family, color, color) for family, color in colors.items()]
    handles += [dot("forward", "#444444", "#444444"), dot("backward", "#444444", "white")]
    axes.legend(
        handles=handles, loc="lower right", ncols=2, fontsize=9, framealpha=1, edgecolor="#cccccc"
    )


def _first_of_each(results: Sequence[Result]) -> list[Result]:
    first: dict[str, Result] = {}
    for result in results:
        first.setdefault(result.name, result)
    return list(first.values())


def _write(
    axes: Any,
    canvas: Any,
    result: Result,
    where: tuple[float, float],
    color: str,
    taken: list[Box],
) -> None:
    """Name a dot in the nearest free place, with a thin line to it where that is not beside it."""
    share = result.share(result.ours)
    assert share is not None
    name = result.name.replace("_backward", " backward").replace("_", " ")
    text = axes.annotate(
        f"{name}  {100 * share:.0f} %",
        where,
        xytext=(0, 0),
        textcoords="offset pixels",
        ha="center",
        va="center",
        fontsize=7.5,
        color=color,
        arrowprops=dict(
            arrowstyle="-", color=color, linewidth=0.5, alpha=0.7, shrinkA=0, shrinkB=4
        ),
        zorder=5,
    )
    left, bottom, right, top = _box(text, canvas)
    half = (right - left) / 2 + 2, (top - bottom) / 2 + 1
    centre = axes.transData.transform(where)
    frame = axes.get_window_extent()
    for offset in _places(half):
        box = _around(centre + offset, *half)
        inside = (
            box[0] >= frame.x0 and box[1] >= frame.y0 and box[2] <= frame.x1 and box[3] <= frame.y1
        )
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            text.set_position(tuple(offset))
            return
    text.remove()  # no room at all: the table has it


def _places(half: tuple[float, float]) -> Iterator[np.ndarray]:
    """Offsets of a label's centre, those that leave it next to the dot first."""
    for distance in (10, 16, 26, 40, 58, 80, 105, 135, 170, 210, 260, 320):
        for turn in (
            0,
            0.5,
            1 / 16,
            -1 / 16,
            7 / 16,
            9 / 16,
            1 / 8,
            -1 / 8,
            3 / 8,
            5 / 8,
            1 / 4,
            3 / 4,
        ):
            direction = np.array([math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)])
            # From the dot to the label's nearest edge, whatever the label's shape.
            yield direction * distance + np.sign(direction.round(6)) * half * abs(direction)


def _box(artist: Any, canvas: Any) -> Box:
    extent = artist.get_window_extent(canvas.get_renderer())
    return extent.x0, extent.y0, extent.x1, extent.y1


def _around(centre: np.ndarray, width: float, height: float) -> Box:
    x, y = centre
    return x - width, y - height, x + width, y + height


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
