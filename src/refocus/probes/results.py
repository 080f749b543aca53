"""Records of a probe -> curves and a headline, with 95 % intervals over images.

Paired where two models answered.

A record is {"image", "values": {series: [number or None per level]}}; numbers come out in `scale`
times theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from refocus.intervals import mean_interval
from refocus.results import Interval

Bounds = tuple[float, float] | None  # None: a number without bounds, such as a loss


def result(
    records: dict[str, list[dict[str, Any]]],
    levels: dict[str, list[Any]],
    *,
    scale: float,
    first: int,
    headline: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Curves and headline of each model, and the differences where there is one before.

    The model before is "against"; differences are model minus against.

    Args:
        records: "model", and perhaps "against" -> its records.
        levels: likewise -> the levels of its series.
        scale: 100 for numbers that are shares.
        first: the headline is each image's mean over this level and all later ones, of the series
            named in `headline`.
        headline: series that count in the headline (none: all).
        seed: of the intervals.

    Returns:
        {"levels", "n", "curves": {which: {series: [{"value", "interval", "deviation", "n"}, ...]}},
        "headline": {which: ..., "difference", "interval"}, "differences": {series: [...]}};
        differences of single levels only where both have the same.
    """
    bounds = (0.0, scale) if scale != 1 else None
    tables = {which: _tables(rows, scale) for which, rows in records.items()}
    curves = {
        which: {
            series: [_cell(column, bounds, seed) for column in table.T]
            for series, table in found.items()
        }
        for which, found in tables.items()
    }
    means = {which: _headline(found, first, headline) for which, found in tables.items()}
    out: dict[str, Any] = {
        "levels": levels,
        "n": {which: len(rows) for which, rows in records.items()},
        "curves": curves,
        "headline": {which: _cell(values, bounds, seed) for which, values in means.items()},
    }
    if "against" in records:
        ours, theirs = _shared(records["model"], records["against"])
        out["headline"] |= _change(means["model"][ours], means["against"][theirs], bounds, seed)
        if levels["model"] == levels["against"] and set(tables["model"]) == set(tables["against"]):
            out["differences"] = {
                series: [
                    _change(a, b, bounds, seed)
                    for a, b in zip(table[ours].T, tables["against"][series][theirs].T, strict=True)
                ]
                for series, table in tables["model"].items()
            }
    return out


def _tables(rows: list[dict[str, Any]], scale: float) -> dict[str, np.ndarray]:
    """Series -> numbers `[n, levels]`, NaN where there is none."""
    found = rows[0]["values"] if rows else {}
    return {
        series: scale * np.array([row["values"][series] for row in rows], dtype=float)
        for series in found
    }


def _headline(tables: dict[str, np.ndarray], first: int, wanted: Sequence[str]) -> np.ndarray:
    """Each image's mean over the series and levels that count: `[n]`."""
    columns = np.concatenate(
        [table[:, first:] for series, table in tables.items() if not wanted or series in wanted],
        axis=1,
    )
    known = ~np.isnan(columns)
    return np.where(
        known.any(1), np.where(known, columns, 0).sum(1) / np.maximum(known.sum(1), 1), np.nan
    )


def _interval(values: np.ndarray, bounds: Bounds, seed: int) -> Interval | None:
    """None also for values without bounds that are all alike, for which there is nothing to say."""
    if bounds is None:
        return (
            mean_interval(values, (-np.inf, np.inf), seed)
            if len(values) and np.ptp(values) > 0
            else None
        )
    return mean_interval(values, bounds, seed)


def _cell(values: np.ndarray, bounds: Bounds, seed: int) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    return {
        "value": float(known.mean()) if len(known) else None,
        "interval": _interval(known, bounds, seed),
        "deviation": float(known.std()) if len(known) else None,
        "n": len(known),
    }


def _change(ours: np.ndarray, theirs: np.ndarray, bounds: Bounds, seed: int) -> dict[str, Any]:
    change = ours - theirs
    known = change[~np.isnan(change)]
    both = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    return {
        "difference": float(known.mean()) if len(known) > 1 else None,
        "difference_interval": _interval(known, both, seed),
    }


def _shared(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> tuple[list[int], list[int]]:
    """Positions of the images that both answered."""
    place = {row["image"]: position for position, row in enumerate(theirs)}
    both = [
        (position, place[row["image"]])
        for position, row in enumerate(ours)
        if row["image"] in place
    ]
    return [a for a, _ in both], [b for _, b in both]
