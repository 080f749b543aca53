"""Curves of a probe's result.

Before is dashed blue with open circles, after solid orange, as in `charts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from refocus.figures.charts import GRID, STYLES, written
from refocus.probes.results import AGAINST, MODEL, Curves, Point, ProbeResult

_PANEL = 2.8  # inches: least width of a panel
_TICKS = 7  # levels that are named, about
_THINGS = 3  # so many levels that are no numbers are things, not a curve
_COLD, _DIVERGING = "cividis", "PuOr"
_STYLE = {AGAINST: "before", MODEL: "after"}


def curve(result: ProbeResult, labels: dict[str, str], width: float = 8.6) -> Figure:
    """All series of a result, a panel each, with bands of 95 %.

    labels: "model", "against" -> what they are called. width: in inches.
    """
    if result.kind == "fourier":
        return _heat(result, labels, width)
    series = list(result.numbers.model.series)
    columns = max(1, min(int(width // _PANEL), len(series)))
    rows = -(-len(series) // columns)
    page = Figure(figsize=(width, 0.8 + 2.3 * rows), layout="constrained")
    panels = page.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes in panels[len(series) :]:
        axes.set_visible(False)
    for axes, name in zip(panels, series, strict=False):
        _panel(axes, result, name, labels)
        if len(series) > 1:
            axes.set_title(name, fontsize=9, parse_math=False)
    page.supylabel(result.unit, fontsize=9)
    page.supxlabel(result.xlabel, fontsize=9)
    if result.numbers.against is not None:
        handles, names = panels[0].get_legend_handles_labels()
        page.legend(handles, names, frameon=False, fontsize=9, ncols=2, loc="outside upper center")
    return page


def thumbnail(result: ProbeResult, counting: Sequence[str]) -> Figure:
    """The mean over the series that count in the headline, for an overview.

    counting: their names; none: all.
    """
    page = Figure(figsize=(2.6, 1.5), layout="constrained")
    axes = page.subplots()
    for which, curves in _in_order(result):
        rows = np.ma.masked_invalid(
            [
                _values(points)
                for series, points in curves.series.items()
                if not counting or series in counting
            ]
        )
        values = rows.mean(axis=0).filled(np.nan)  # a level without any number stays empty
        look: dict[str, Any] = {**STYLES[_STYLE[which]], "markersize": 3, "linewidth": 1.2}
        axes.plot(range(len(values)), values, **look)
    if result.in_percent:
        axes.set_ylim(-4, 104)
        axes.set_yticks([0, 50, 100], ["0 %", "50 %", "100 %"])
    ends = [str(level) for level in result.numbers.model.levels]
    axes.set_xticks(range(len(ends))[:: max(1, len(ends) - 1)], ends[:: max(1, len(ends) - 1)])
    axes.tick_params(labelsize=7)
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    return page


def _in_order(result: ProbeResult) -> list[tuple[str, Curves]]:
    """The one before first, so that it lies below."""
    found = result.numbers.curves
    return [(which, found[which]) for which in (AGAINST, MODEL) if which in found]


def _values(points: Sequence[Point]) -> np.ndarray:
    return np.array([np.nan if p.value is None else p.value for p in points], dtype=float)


def _panel(axes: Axes, result: ProbeResult, series: str, labels: dict[str, str]) -> None:
    paired = result.numbers.against is not None
    for which, curves in _in_order(result):
        points, levels = curves.series.get(series, []), curves.levels
        if not points:  # the other model has no such series
            continue
        numeric = all(isinstance(level, int | float) for level in levels)
        at = np.array(levels if numeric else range(len(levels)), dtype=float)
        if len(points) <= _THINGS and not numeric:
            shift = (0.12 if which == MODEL else -0.12) if paired else 0
            _whiskers(axes, at + shift, points, _STYLE[which], labels[which])
        else:
            _line(axes, at, points, _STYLE[which], labels[which])
        if not numeric:
            step = max(1, len(levels) // _TICKS)
            names = [str(level) for level in levels][::step]
            axes.set_xticks(at[::step], names, fontsize=8, parse_math=False)
            axes.set_xlim(-0.5, len(levels) - 0.5)
    if result.in_percent:
        axes.set_ylim(-3, 103)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_facecolor("none")
    axes.set_axisbelow(True)


def _ends(points: Sequence[Point]) -> np.ndarray:
    """Low and high of each point, its value where it has no interval: `[n, 2]`."""
    return np.array([p.interval or [p.value] * 2 for p in points], dtype=float)


def _whiskers(axes: Axes, at: np.ndarray, points: Sequence[Point], style: str, label: str) -> None:
    values, ends = _values(points), _ends(points)
    reach = np.clip([values - ends[:, 0], ends[:, 1] - values], 0, None)
    look: dict[str, Any] = {**STYLES[style], "linestyle": ""}
    axes.errorbar(at, values, yerr=reach, capsize=3, label=label, **look)


def _line(axes: Axes, at: np.ndarray, points: Sequence[Point], style: str, label: str) -> None:
    ends = _ends(points)
    look: dict[str, Any] = STYLES[style]
    axes.plot(at, _values(points), label=label, markersize=4, **look)
    axes.fill_between(at, ends[:, 0], ends[:, 1], color=look["color"], alpha=0.15, linewidth=0)


def _heat(result: ProbeResult, labels: dict[str, str], width: float) -> Figure:
    """Top-1 under noise of each frequency, of each model, and the difference.

    The half of the plane that is a mirror is drawn too.
    """
    grids = {
        labels[which]: _plane(curves, _values(curves.series["noise"]).tolist())
        for which, curves in _in_order(result)
    }
    if result.numbers.changes is not None:
        changes = [c.difference for c in result.numbers.changes["noise"]]
        grids["difference, points"] = _plane(result.numbers.model, changes)
    columns = max(1, min(int(width // _PANEL), len(grids)))
    deep = -(-len(grids) // columns)
    page = Figure(figsize=(width, 0.3 + 3.0 * deep), layout="constrained")
    panels = page.subplots(deep, columns, squeeze=False).flatten()
    for axes in panels[len(grids) :]:
        axes.set_visible(False)
    for axes, (title, (grid, rows, cells)) in zip(panels, grids.items(), strict=False):
        change = title.startswith("difference")
        reach = max(1.0, float(np.nanmax(np.abs(grid))))
        low, high = (-reach, reach) if change else (0, 100)
        picture = axes.imshow(grid, cmap=_DIVERGING if change else _COLD, vmin=low, vmax=high)
        axes.set_xticks(range(len(cells)), cells, fontsize=7)
        axes.set_yticks(range(len(rows)), rows, fontsize=7)
        named = title if change else f"{title}: {result.unit}"
        axes.set_title(named, fontsize=9, parse_math=False)
        page.colorbar(picture, ax=axes, shrink=0.7).ax.tick_params(labelsize=7)
    page.supxlabel(f"{result.xlabel}, horizontal", fontsize=9)
    page.supylabel(f"{result.xlabel}, vertical", fontsize=9)
    return page


def _plane(
    curves: Curves, values: Sequence[float | None]
) -> tuple[np.ndarray, list[int], list[int]]:
    """One value per frequency as a grid, and the frequencies of its rows and columns."""
    at = [tuple(map(int, str(level).split(","))) for level in curves.levels]
    every = at + [(-row, -column) for row, column in at]
    rows, columns = (sorted({frequency[axis] for frequency in every}) for axis in (0, 1))
    grid = np.full((len(rows), len(columns)), np.nan)
    for (row, column), value in zip(every, [*values, *values], strict=True):
        grid[rows.index(row), columns.index(column)] = np.nan if value is None else value
    # at the highest frequency both signs are one wave, measured once
    return np.where(np.isnan(grid), grid[::-1], grid), rows, columns


def png(page: Figure) -> bytes:
    """A figure as a file."""
    return written(page, "png", dpi=120)
