"""Charts of `results.json` as SVG data URIs.

Before is an open blue circle, after a filled orange one: shapes differ as well as colours, and the
two colours (Okabe and Ito) can be told apart with any kind of colour vision.
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


def accuracies(
    rows: Sequence[Row], befores: Sequence[list[float] | None], labels: tuple[str, str]
) -> str:
    """Top-1 of each row with its 95 % interval, the first row on top.

    Where there is a model before, its top-1 beside it.

    befores: interval of each row's `before`. labels: legend of before and after.
    """
    page = Figure(figsize=(_WIDTH, 0.8 + 0.42 * len(rows)), layout="constrained")
    axes = page.subplots()
    paired = any(row.before is not None for row in rows)
    for position, (row, interval) in enumerate(zip(rows, befores, strict=True)):
        y = len(rows) - position
        if row.before is not None:
            _whisker(
                axes, row.before, interval, y + 0.14, "before", labels[0] if position == 0 else ""
            )
        if row.value is not None:
            label = labels[1] if position == 0 and paired else ""
            _whisker(axes, row.value, row.interval, y - 0.14 * paired, "after", label)
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


def _whisker(
    axes: Axes, value: float, interval: list[float] | None, y: float, style: str, label: str
) -> None:
    low, high = interval or (value, value)
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


def curve(entry: dict[str, Any], xlabel: str, labels: tuple[str, str]) -> str:
    """Accuracy over the levels of a shift, with bands of 95 %.

    Levels are named by numbers (percent or degrees).
    """
    page = Figure(figsize=(_WIDTH, 2.8), layout="constrained")
    axes = page.subplots()
    at = [float(line["level"]) for line in entry["levels"]]
    series = {"after": entry["levels"]}
    if "against" in entry:
        series = {"before": [line["against"] for line in entry["levels"]], **series}
    for style, lines in series.items():
        band = np.array([line["top1_interval"] or [line["top1"]] * 2 for line in lines])
        label = labels[style == "after"] if len(series) > 1 else None
        look: dict[str, Any] = STYLES[style]
        axes.plot(at, [line["top1"] for line in lines], label=label, markersize=5, **look)
        axes.fill_between(at, band[:, 0], band[:, 1], color=look["color"], alpha=0.15, linewidth=0)
    if at[0] > 0 and at[-1] / at[0] > 20:
        axes.set_xscale("log")
    axes.set_xticks(at, [f"{value:g}" for value in at])
    axes.minorticks_off()
    axes.axhline(entry["chance"], color=MUTED, linewidth=1, linestyle=":")
    axes.annotate("chance", (at[0], entry["chance"]), fontsize=8, color=MUTED, va="bottom")
    axes.set_xlabel(xlabel)
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(0, 100)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8)
    _bare(axes)
    return _uri(page)


def places(entry: dict[str, Any], labels: tuple[str, str]) -> str:
    """Accuracy by place of the object's centre: one grid per model, numbers in percent."""
    grids = {labels[1]: entry["levels"]}
    if "against" in entry:
        grids = {labels[0]: [line["against"] for line in entry["levels"]], **grids}
    names = [line["level"].split("-") for line in entry["levels"]]
    columns, rows = (sorted({name[i] for name in names}) for i in range(2))
    page = Figure(figsize=(_WIDTH / 2 * len(grids), 2.9), layout="constrained")
    for axes, (title, lines) in zip(
        page.subplots(1, len(grids), squeeze=False)[0], grids.items(), strict=True
    ):
        values = np.zeros((len(rows), len(columns)))
        for (column, row), line in zip(names, lines, strict=True):
            values[rows.index(row), columns.index(column)] = line["top1"]
        axes.imshow(values, cmap="cividis", vmin=0, vmax=100)
        for (y, x), value in np.ndenumerate(values):
            axes.text(
                x,
                y,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if value < 60 else "black",
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(title, fontsize=10, parse_math=False)
    return _uri(page)


def changes(rows: Sequence[dict[str, Any]]) -> str:
    """Change of top-1 of each class in points with its 95 % interval.

    Sorted as `metrics.group_differences` sorts them; each has one.
    """
    page = Figure(figsize=(_WIDTH, 0.7 + 0.25 * len(rows)), layout="constrained")
    axes = page.subplots()
    at = np.arange(len(rows), 0, -1)
    values = np.array([row["top1"] - row["before"] for row in rows])
    intervals = np.array([row["difference"]["interval"] for row in rows])
    colors = [AFTER if value > 0 else BEFORE if value < 0 else MUTED for value in values]
    axes.barh(at, values, color=colors, height=0.6)
    reach = np.clip([values - intervals[:, 0], intervals[:, 1] - values], 0, None)
    axes.errorbar(values, at, xerr=reach, fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
    axes.axvline(0, color="#333333", linewidth=1)
    axes.set_yticks(at, [row["name"] for row in rows], fontsize=8, parse_math=False)
    axes.set_xlabel("change of top-1, points (95 % interval)")
    _bare(axes)
    return _uri(page)


def series(lines: dict[str, tuple[dict[int, Any], Any]], xlabel: str) -> str:
    """Top-1 over a number, one line for each suite, with bands of 95 %.

    The dotted line of its colour is the original.

    lines: suite -> (number -> a record with value, low and high, the same of the original).
    """
    page = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    axes = page.subplots()
    styles = zip(_SERIES, _MARKERS, strict=True)
    for (name, (points, start)), (color, marker) in zip(lines.items(), cycle(styles), strict=False):
        at, values = list(points), [p.value for p in points.values()]
        axes.plot(at, values, color=color, marker=marker, markersize=5, label=name)
        if all(p.low is not None for p in points.values()):
            axes.fill_between(
                at,
                [p.low for p in points.values()],
                [p.high for p in points.values()],
                color=color,
                alpha=0.1,
                lw=0,
            )
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
