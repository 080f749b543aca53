"""Curves of a probe's result as PNG.

Before is dashed blue with open circles, after solid orange, as in `charts`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from refocus.figures.charts import STYLES

_PANELS = 3  # beside each other
_COLD, _DIVERGING = "cividis", "PuOr"


def curve(result: dict[str, Any], labels: dict[str, str]) -> bytes:
    """All series of a result, a panel each, with bands of 95 %.

    labels: "model", "against" -> what they are called.
    """
    if result["kind"] == "fourier":
        return _heat(result, labels)
    series = list(result["curves"]["model"])
    columns = min(_PANELS, len(series))
    rows = -(-len(series) // columns)
    page = Figure(figsize=(max(4.2, 2.9 * columns), 0.5 + 2.3 * rows), layout="constrained")
    panels = page.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes in panels[len(series) :]:
        axes.set_visible(False)
    for axes, name in zip(panels, series, strict=False):
        _panel(axes, result, name, labels)
        if len(series) > 1:
            axes.set_title(name, fontsize=9, parse_math=False)
    for row in range(rows):
        panels[row * columns].set_ylabel(result["unit"], fontsize=9)
    if result["xlabel"]:
        page.supxlabel(result["xlabel"], fontsize=9)
    if len(result["curves"]) > 1:
        handles, names = panels[0].get_legend_handles_labels()
        page.legend(handles, names, frameon=False, fontsize=9, ncols=2, loc="outside upper center")
    return _png(page)


def thumbnail(result: dict[str, Any], counting: Sequence[str]) -> bytes:
    """The mean over the series that count in the headline, without words, for an overview.

    None named: all.
    """
    page = Figure(figsize=(2.0, 1.1), layout="constrained")
    axes = page.subplots()
    for style, which in _order(result):
        rows = [
            row
            for series, row in result["curves"][which].items()
            if not counting or series in counting
        ]
        values = np.nanmean(
            [[np.nan if c["value"] is None else c["value"] for c in row] for row in rows], axis=0
        )
        look: dict[str, Any] = {**STYLES[style], "markersize": 3, "linewidth": 1.2}
        axes.plot(range(len(values)), values, **look)
    if "%" in result["unit"]:
        axes.set_ylim(-4, 104)
    axes.set_xticks([])
    axes.tick_params(labelsize=6)
    axes.spines[["top", "right"]].set_visible(False)
    return _png(page)


def _order(result: dict[str, Any]) -> list[tuple[str, str]]:
    return (
        [("before", "against"), ("after", "model")]
        if "against" in result["curves"]
        else [("after", "model")]
    )


def _panel(axes: Axes, result: dict[str, Any], series: str, labels: dict[str, str]) -> None:
    for style, which in _order(result):
        cells = result["curves"][which].get(series, [])
        levels = result["levels"][which]
        numeric = all(isinstance(level, int | float) for level in levels)
        at = np.array(levels if numeric else range(len(levels)), dtype=float)
        values = np.array([np.nan if c["value"] is None else c["value"] for c in cells])
        ends = np.array([c["interval"] or [c["value"]] * 2 for c in cells], dtype=float)
        look: dict[str, Any] = STYLES[style]
        if len(cells) <= 3 and not numeric:  # things, not a curve
            shift = 0.12 if style == "after" else -0.12 if "against" in result["curves"] else 0
            reach = np.clip([values - ends[:, 0], ends[:, 1] - values], 0, None)
            axes.errorbar(
                at + shift,
                values,
                yerr=reach,
                capsize=3,
                label=labels[which],
                **{**look, "linestyle": ""},
            )
        else:
            axes.plot(at, values, label=labels[which], markersize=4, **look)
            axes.fill_between(
                at, ends[:, 0], ends[:, 1], color=look["color"], alpha=0.15, linewidth=0
            )
        if not numeric:
            step = max(1, len(levels) // 7)
            axes.set_xticks(
                at[::step], [str(level) for level in levels][::step], fontsize=8, parse_math=False
            )
            axes.set_xlim(-0.5, len(levels) - 0.5)
    if "%" in result["unit"]:
        axes.set_ylim(-3, 103)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def _heat(result: dict[str, Any], labels: dict[str, str]) -> bytes:
    """Top-1 under noise of each frequency, of each model, and the difference.

    The half that is a mirror is drawn too.
    """
    grids = {
        labels[which]: _plane(result, result["curves"][which]["noise"], which)
        for _, which in _order(result)
    }
    if "differences" in result:
        cells = [{"value": change["difference"]} for change in result["differences"]["noise"]]
        grids["difference, points"] = _plane(result, cells, "model")
    page = Figure(figsize=(3.1 * len(grids), 3.2), layout="constrained")
    for axes, (title, (grid, rows, columns)) in zip(
        page.subplots(1, len(grids), squeeze=False)[0], grids.items(), strict=True
    ):
        change = title.startswith("difference")
        reach = max(1.0, float(np.nanmax(np.abs(grid))))
        picture = axes.imshow(
            grid,
            cmap=_DIVERGING if change else _COLD,
            vmin=-reach if change else 0,
            vmax=reach if change else 100,
        )
        axes.set_xticks(range(len(columns)), columns, fontsize=7)
        axes.set_yticks(range(len(rows)), rows, fontsize=7)
        axes.set_title(title, fontsize=9, parse_math=False)
        page.colorbar(picture, ax=axes, shrink=0.7).ax.tick_params(labelsize=7)
    page.supxlabel(result["xlabel"], fontsize=9)
    return _png(page)


def _plane(
    result: dict[str, Any], cells: list[dict[str, Any]], which: str
) -> tuple[np.ndarray, list[int], list[int]]:
    at = [tuple(map(int, level.split(","))) for level in result["levels"][which]]
    every = at + [(-row, -column) for row, column in at]
    rows, columns = (sorted({place[axis] for place in every}) for axis in (0, 1))
    grid = np.full((len(rows), len(columns)), np.nan)
    for (row, column), cell in zip(every, cells * 2, strict=True):
        grid[rows.index(row), columns.index(column)] = cell["value"]
    grid = np.where(
        np.isnan(grid), grid[::-1], grid
    )  # at the highest frequency both signs are one wave, measured once
    return grid, rows, columns


def _png(page: Figure) -> bytes:
    buffer = io.BytesIO()
    page.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
