"""Charts of what was measured as SVG data URIs, each for wide and for narrow screens.

The model compared with is an open blue circle, the model a filled orange one: shapes differ as well
as colours, and the two colours (Okabe and Ito) can be told apart with any kind of colour vision. A
chart follows the reader's light or dark mode.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from refocus.figures.fonts import cover, missing
from refocus.figures.html import data_uri
from refocus.figures.tables import Row
from refocus.results import Estimate, ShiftEntry

BEFORE, AFTER, MUTED = "#0072b2", "#d55e00", "#767676"
GRID, PAPER, LINE = "#e5e5e5", "#fefefe", "#333333"
_SERIES = (BEFORE, AFTER, "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito
_MARKERS = ("o", "s", "^", "D", "v", "P")
_WIDE, _NARROW = 8.6, 4.4  # inches, so that the writing can be read on a desktop and on a phone
_DARK = {  # the same colours on a dark page
    BEFORE: "#6cc0ee",
    AFTER: "#ff9d57",
    MUTED: "#a0a4aa",
    GRID: "#3b3f45",
    PAPER: "#16181b",
    LINE: "#d0d0d0",
    "#000000": "#e9e9e6",
}
STYLES = {
    "before": {"color": BEFORE, "marker": "o", "markerfacecolor": PAPER, "linestyle": "--"},
    "after": {"color": AFTER, "marker": "o", "linestyle": "-"},
}


@dataclass(frozen=True)
class Chart:
    """One chart as two data URIs: for wide screens and for phones."""

    wide: str
    narrow: str


def both(draw: Callable[[float], Figure]) -> Chart:
    """A chart for wide and narrow screens; draw: width in inches -> the figure."""
    return Chart(svg_uri(draw(_WIDE)), svg_uri(draw(_NARROW)))


def written(page: Figure, kind: str, **how: Any) -> bytes:
    """A figure as a file's content; kind: png or svg, how: as matplotlib's `savefig` takes it.

    Characters that matplotlib's font lacks are drawn with an installed one that has them. Where
    none does, they are boxes, of which matplotlib's warnings help nobody who reads them elsewhere.
    """
    content, lacking = _drawn(page, kind, how)
    if lacking and cover(page, lacking):
        content, _ = _drawn(page, kind, how)
    return content


def _drawn(page: Figure, kind: str, how: Mapping[str, Any]) -> tuple[bytes, frozenset[int]]:
    """A figure as a file's content, and the characters that were boxes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        page.savefig(buffer, format=kind, **how)
    lacking = {one: missing(str(one.message)) for one in said}
    for one, character in lacking.items():
        if character is None:  # of something else
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return buffer.getvalue(), frozenset(c for c in lacking.values() if c is not None)


def svg_uri(page: Figure) -> str:
    """A figure as SVG whose colours follow the reader's light or dark mode."""
    page.patch.set_alpha(0)
    with rc_context({"svg.hashsalt": "refocus"}):  # the same numbers give the same file
        svg = written(page, "svg", metadata={"Date": None})
    return data_uri(_themed(svg.decode()).encode(), "svg+xml")


def _themed(svg: str) -> str:
    """Colours become variables with a value for each mode; in print it is the light one."""
    light, dark = [], []
    for number, (color, other) in enumerate(_DARK.items()):
        svg = svg.replace(color, f"var(--c{number})")
        light.append(f"--c{number}:{color}")
        dark.append(f"--c{number}:{other}")
    ink = f"svg{{fill:var(--c{len(_DARK) - 1})}}"  # glyphs have no colour of their own
    style = (
        f"<style>:root{{{';'.join(light)}}}{ink}@media screen and (prefers-color-scheme:dark)"
        f"{{:root{{{';'.join(dark)}}}}}</style>"
    )
    return svg.replace("<defs>", f"{style}<defs>", 1)


def _plain_axes(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def accuracies(rows: Sequence[Row], labels: tuple[str, str]) -> Chart:
    """Top-1 of each row with its 95 % interval, the first row on top.

    Where there is a model compared with, its top-1 beside it, on the same axis.

    `labels` are the legend of the model compared with, and of the model.
    """
    return both(lambda width: _accuracies(rows, labels, width))


def _accuracies(rows: Sequence[Row], labels: tuple[str, str], width: float) -> Figure:
    page = Figure(figsize=(width, 0.9 + 0.42 * len(rows)), layout="constrained")
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
    # on a phone the names leave the axes narrower than this line
    axes.set_xlabel("top-1 accuracy, % (with 95 % interval)", loc="right")
    if paired:
        page.legend(frameon=False, fontsize=9, ncols=2, loc="outside upper center")
    _plain_axes(axes)
    return page


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


def curve(shift: ShiftEntry, xlabel: str, labels: tuple[str, str]) -> Chart:
    """Accuracy over the levels of a shift, with bands of 95 %.

    Levels are named by numbers (percent or degrees).
    """
    return both(lambda width: _curve(shift, xlabel, labels, width))


def _curve(shift: ShiftEntry, xlabel: str, labels: tuple[str, str], width: float) -> Figure:
    page = Figure(figsize=(width, 3.0), layout="constrained")
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
    axes.annotate(
        "always the same answer", (at[0], shift.chance), fontsize=8, color=MUTED, va="bottom"
    )
    axes.set_xlabel(xlabel)
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(0, 100)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    _plain_axes(axes)
    return page


def places(shift: ShiftEntry, labels: tuple[str, str]) -> Chart:
    """Accuracy by place of the object's centre: one grid per model, numbers in percent."""
    return both(lambda width: _places(shift, labels, width))


def _places(shift: ShiftEntry, labels: tuple[str, str], width: float) -> Figure:
    grids = _lines(shift, labels).values()
    names = [level.level.split("-") for level in shift.levels]
    columns, rows = (sorted({name[i] for name in names}) for i in range(2))
    page = Figure(figsize=(width, 0.5 + min(3.6, width / 2)), layout="constrained")
    for axes, (title, numbers) in zip(
        page.subplots(1, len(grids), squeeze=False)[0], grids, strict=True
    ):
        values = np.zeros((len(rows), len(columns)))
        for (column, row), number in zip(names, numbers, strict=True):
            values[rows.index(row), columns.index(column)] = number.value
        axes.imshow(values, cmap="cividis", vmin=0, vmax=100)
        for (y, x), value in np.ndenumerate(values):
            color = "#ffffff" if value < 60 else "#111111"  # on the cell, in either mode
            axes.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=9, color=color)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(title, fontsize=10, parse_math=False)
    return page


def changes(rows: Mapping[str, Estimate], measure: str = "top-1") -> Chart:
    """Changes in points with their 95 % intervals, by name, the first one on top.

    What has no interval, such as a class of one image, is drawn without.
    """
    return both(lambda width: _changes(rows, measure, width))


def _changes(rows: Mapping[str, Estimate], measure: str, width: float) -> Figure:
    page = Figure(figsize=(width, 0.7 + 0.25 * len(rows)), layout="constrained")
    axes = page.subplots()
    at = np.arange(len(rows), 0, -1)
    values = np.array([np.nan if row.value is None else row.value for row in rows.values()])
    intervals = np.array([row.interval or (row.value, row.value) for row in rows.values()])
    colors = [AFTER if value > 0 else BEFORE if value < 0 else MUTED for value in values]
    axes.barh(at, values, color=colors, height=0.6)
    reach = np.clip([values - intervals[:, 0], intervals[:, 1] - values], 0, None)
    axes.errorbar(values, at, xerr=reach, fmt="none", ecolor=LINE, elinewidth=1, capsize=2)
    axes.axvline(0, color=LINE, linewidth=1)
    axes.set_yticks(at, list(rows), fontsize=8, parse_math=False)
    axes.set_xlabel(f"change of {measure}, points (95 % interval)", loc="right")
    _plain_axes(axes)
    return page


def series(lines: dict[str, tuple[dict[int, Estimate], Estimate]], xlabel: str) -> Chart:
    """Top-1 over a number, one line for each suite, with bands of 95 %.

    The dotted line of its colour is the original.

    lines: suite -> (number -> top-1 in percent, the same of the original).
    """
    return both(lambda width: _series(lines, xlabel, width))


def _series(
    lines: dict[str, tuple[dict[int, Estimate], Estimate]], xlabel: str, width: float
) -> Figure:
    page = Figure(figsize=(width, 3.4), layout="constrained")
    axes = page.subplots()
    for number, (name, (points, start)) in enumerate(lines.items()):
        color = _SERIES[number % len(_SERIES)]  # a colour that comes again has another marker
        marker = _MARKERS[(number + number // len(_SERIES)) % len(_MARKERS)]
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
    axes.set_ylabel("top-1, % (dotted: original)")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _plain_axes(axes)
    return page


def bars(groups: dict[str, list[float]], labels: list[str], xlabel: str) -> Chart:
    """Bars side by side; groups: title -> one value per label."""
    return both(lambda width: _bars(groups, labels, xlabel, width))


def _bars(groups: dict[str, list[float]], labels: list[str], xlabel: str, width: float) -> Figure:
    page = Figure(figsize=(width, 0.9 + 0.24 * len(groups) * len(labels)), layout="constrained")
    axes = page.subplots()
    height = 0.8 / len(groups)
    for i, (name, values) in enumerate(groups.items()):
        at = np.arange(len(labels)) + (i - (len(groups) - 1) / 2) * height
        drawn = axes.barh(at, values, height, label=name, color=_SERIES[i % len(_SERIES)])
        axes.bar_label(drawn, fmt="%.0f", fontsize=9, padding=2)
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_xlabel(xlabel)
    columns = len(groups) if width == _WIDE else 2
    page.legend(frameon=False, fontsize=9, ncols=columns, loc="outside upper center")
    _plain_axes(axes)
    return page
