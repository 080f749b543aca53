"""Charts of what was measured as SVG data URIs.

The model compared with is an open blue circle, the model a filled orange one: shapes differ as well
as colours, and the two colours (Okabe and Ito) can be told apart with any kind of colour vision.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from refocus.figures.html import data_uri
from refocus.figures.tables import Row
from refocus.results import Estimate, GroupChange, ShiftEntry

BEFORE, AFTER, MUTED = "#0072B2", "#D55E00", "#767676"
_SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito
_MARKERS = ("o", "s", "^", "D", "v", "P")
_WIDTH = 5.6  # inches: small enough that the writing can be read on a phone
STYLES = {
    "before": {"color": BEFORE, "marker": "o", "markerfacecolor": "white", "linestyle": "--"},
    "after": {"color": AFTER, "marker": "o", "linestyle": "-"},
}


def _uri(page: Figure) -> str:
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "refocus"}):  # the same numbers give the same file
        page.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri(buffer.getvalue(), "svg+xml")


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def accuracies(rows: Sequence[Row], labels: tuple[str, str]) -> str:
    """Top-1 of each row with its 95 % interval, the first row on top.

    Where there is a model compared with, its top-1 beside it.

    `labels` are the legend of the model compared with, and of the model.
    """
    page = Figure(figsize=(_WIDTH, 0.8 + 0.42 * len(rows)), layout="constrained")
    axes = page.subplots()
    paired = any(row.paired for row in rows)
    for position, row in enumerate(rows):
        y = len(rows) - position
        legend = labels if position == 0 and paired else ("", "")
        if row.number.against is not None:
            _whisker(axes, row.number.against, y + 0.14, "before", legend[0])
        _whisker(axes, row.number.model, y - 0.14 * paired, "after", legend[1])
    several = len({row.protocol for row in rows}) > 1
    names = [f"{row.name} ({row.protocol})" if several else row.name for row in rows]
    axes.set_yticks(range(len(rows), 0, -1), names, parse_math=False)
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("top-1 accuracy, % (95 % interval)")
    if paired:
        axes.legend(
            frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0)
        )
    _bare(axes)
    return _uri(page)


def _whisker(axes: Axes, number: Estimate, y: float, style: str, label: str) -> None:
    if number.value is None:
        return
    value = number.value
    low, high = number.interval or (value, value)
    look: dict[str, Any] = {**STYLES[style], "linestyle": ""}
    axes.errorbar(
        [value],
        [y],
        xerr=[[max(0, value - low)], [max(0, high - value)]],
        capsize=3,
        markersize=6,
        label=label or None,
        **look,
    )


def _lines(shift: ShiftEntry, labels: tuple[str, str]) -> dict[str, tuple[str, list[Estimate]]]:
    """Style -> legend and the numbers of all levels; of the model compared with first."""
    against = [level.top1.against for level in shift.levels if level.top1.against]
    lines = {"before": (labels[0], against)} if against else {}
    return lines | {"after": (labels[1], [level.top1.model for level in shift.levels])}


def curve(shift: ShiftEntry, xlabel: str, labels: tuple[str, str]) -> str:
    """Accuracy over the levels of a shift, with bands of 95 %.

    Levels are named by numbers (percent or degrees).
    """
    page = Figure(figsize=(_WIDTH, 2.8), layout="constrained")
    axes = page.subplots()
    at = [float(level.level) for level in shift.levels]
    lines = _lines(shift, labels)
    for style, (label, numbers) in lines.items():
        band = np.array([number.interval or (number.value,) * 2 for number in numbers])
        look: dict[str, Any] = STYLES[style]
        values = np.array([number.value for number in numbers], dtype=float)
        axes.plot(at, values, label=label if len(lines) > 1 else None, markersize=5, **look)
        axes.fill_between(at, band[:, 0], band[:, 1], color=look["color"], alpha=0.15, linewidth=0)
    if at[0] > 0 and at[-1] / at[0] > 20:
        axes.set_xscale("log")
    axes.set_xticks(at, [f"{value:g}" for value in at])
    axes.minorticks_off()
    axes.axhline(shift.chance, color=MUTED, linewidth=1, linestyle=":")
    axes.annotate("chance", (at[0], shift.chance), fontsize=8, color=MUTED, va="bottom")
    axes.set_xlabel(xlabel)
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(0, 100)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    _bare(axes)
    return _uri(page)


def places(shift: ShiftEntry, labels: tuple[str, str]) -> str:
    """Accuracy by place of the object's centre: one grid per model, numbers in percent."""
    grids = _lines(shift, labels).values()
    names = [level.level.split("-") for level in shift.levels]
    columns, rows = (sorted({name[i] for name in names}) for i in range(2))
    page = Figure(figsize=(_WIDTH / 2 * len(grids), 2.9), layout="constrained")
    for axes, (title, numbers) in zip(
        page.subplots(1, len(grids), squeeze=False)[0], grids, strict=True
    ):
        values = np.zeros((len(rows), len(columns)))
        for (column, row), number in zip(names, numbers, strict=True):
            values[rows.index(row), columns.index(column)] = number.value
        axes.imshow(values, cmap="cividis", vmin=0, vmax=100)
        for (y, x), value in np.ndenumerate(values):
            color = "white" if value < 60 else "black"
            axes.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=9, color=color)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(title, fontsize=10, parse_math=False)
    return _uri(page)


def changes(rows: Sequence[GroupChange]) -> str:
    """Change of top-1 of each class in points with its 95 % interval.

    In the order of `metrics.group_differences`; a class of one image has no interval.
    """
    page = Figure(figsize=(_WIDTH, 0.7 + 0.25 * len(rows)), layout="constrained")
    axes = page.subplots()
    at = np.arange(len(rows), 0, -1)
    values = np.array([row.gain for row in rows])
    intervals = np.array([row.change.top1.interval or (row.gain, row.gain) for row in rows])
    colors = [AFTER if value > 0 else BEFORE if value < 0 else MUTED for value in values]
    axes.barh(at, values, color=colors, height=0.6)
    reach = np.clip([values - intervals[:, 0], intervals[:, 1] - values], 0, None)
    axes.errorbar(values, at, xerr=reach, fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
    axes.axvline(0, color="#333333", linewidth=1)
    axes.set_yticks(at, [row.name for row in rows], fontsize=8, parse_math=False)
    axes.set_xlabel("change of top-1, points (95 % interval)")
    _bare(axes)
    return _uri(page)


def series(lines: dict[str, tuple[dict[int, Estimate], Estimate]], xlabel: str) -> str:
    """Top-1 over a number, one line for each suite, with bands of 95 %.

    The dotted line of its colour is the original.

    lines: suite -> (number -> top-1 in percent, the same of the original).
    """
    page = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    axes = page.subplots()
    styles = zip(_SERIES, _MARKERS, strict=True)
    for (name, (points, start)), (color, marker) in zip(lines.items(), cycle(styles), strict=False):
        at, values = list(points), [np.nan if p.value is None else p.value for p in points.values()]
        axes.plot(at, values, color=color, marker=marker, markersize=5, label=name)
        bands = [p.interval for p in points.values() if p.interval is not None]
        if len(bands) == len(points):
            low, high = zip(*bands, strict=True)
            axes.fill_between(at, low, high, color=color, alpha=0.1, lw=0)
        if start.value is not None:
            axes.axhline(start.value, color=color, linewidth=1, linestyle=":")
    ticks = sorted({number for points, _ in lines.values() for number in points})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_xlabel(xlabel)
    axes.set_ylabel("top-1 accuracy, % (dotted: original)")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _bare(axes)
    return _uri(page)


def bar_chart(series: dict[str, list[float]], labels: list[str], ylabel: str) -> str:
    """Grouped bars as a data URI: series name -> one value per label."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.5, 3), layout="constrained")
    axes = page.subplots()
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        at = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * width
        bars = axes.bar(
            at,
            values,
            width,
            label=name,
            color=matplotlib.colormaps["viridis"](0.15 + 0.7 * i / max(1, len(series) - 1)),
        )
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False, fontsize=8, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1.02)
    )
    buffer = io.BytesIO()
    page.savefig(buffer, dpi=110)
    return data_uri(buffer.getvalue(), "png")
