"""Records of a probe -> curves and a headline, with 95 % intervals over images.

Paired where two models answered. `result.json` holds a `ProbeResult`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from refocus.errors import InputError
from refocus.files import read_json, write_json
from refocus.intervals import flip_chance, mean_interval
from refocus.records import ProbeRecord, from_json, to_json
from refocus.results import Change, Compared, Estimate, Interval

SCHEMA = 1
FILE = "result.json"
Values = Mapping[str, Sequence[float | None]]  # series -> one number per level, as in a record
Level = int | float | str
Bounds = tuple[float, float] | None  # None: a number without bounds, such as a loss
MODEL, AGAINST = "model", "against"


@dataclass(frozen=True)
class Point:
    """One level of a series: the mean over images, and the deviation between them."""

    value: float | None  # None where no image has a number
    interval: Interval | None  # 95 %; None where there is too little to say
    n: int  # images that have a number
    deviation: float | None  # standard deviation over images


@dataclass(frozen=True)
class Curves:
    """What one model answered under one probe."""

    levels: list[Level]  # values along the x axis
    n: int  # images
    series: dict[str, list[Point]]  # name -> a point for each level
    summary: dict[str, float | None]  # further numbers, such as the mean corruption error


@dataclass(frozen=True)
class Numbers:
    """Curves of the model and of the one it is compared with."""

    model: Curves  # the model that is judged
    against: Curves | None  # the model compared with
    headline: Compared  # each image's mean over the levels and series that count
    changes: dict[str, list[Change]] | None  # of each level, where both models have the same

    @property
    def curves(self) -> dict[str, Curves]:
        """Model, and against where there is one -> its curves."""
        return {MODEL: self.model, **({AGAINST: self.against} if self.against else {})}


@dataclass(frozen=True)
class ProbeResult:
    """One probe on one model, or on two."""

    kind: str  # name of the probe
    about: str  # what it tests
    source: str  # the paper
    xlabel: str  # what the levels are
    unit: str  # of the numbers
    better: bool  # is more better?
    models: dict[str, str]  # "model", and perhaps "against" -> as given
    numbers: Numbers  # curves and headline
    schema: int = SCHEMA  # version of this file
    precision: Literal["fp32", "bf16"] = "fp32"  # number format that the models answered in

    @property
    def in_percent(self) -> bool:
        """Whether its numbers are shares in percent."""
        return "%" in self.unit


@dataclass(frozen=True)
class Counting:
    """How numbers are made of records.

    scale: 100 for numbers that are shares. first: the headline is the mean over this level and all
    later ones, of the series named in `headline` (none: all). seed: of the intervals.
    """

    scale: float
    first: int
    headline: Sequence[str] = ()
    seed: int = 0

    @property
    def bounds(self) -> Bounds:
        """The least and greatest value that a number can have."""
        return (0.0, self.scale) if self.scale != 1 else None


# --- reading and writing ------------------------------------------------------------------------


def write(file: Path, result: ProbeResult) -> None:
    """Write `result.json`."""
    write_json(file, to_json(result))


def read(file: Path) -> ProbeResult:
    """Read `result.json`, also one that was written before it had a schema.

    Raises:
        InputError: not such a file, or of a newer refocus.
    """
    content = read_json(file)
    if isinstance(content, dict) and "schema" not in content:
        try:
            content = _with_schema(content)
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{file}: not what refocus writes (no {error})") from error
    found = from_json(content, ProbeResult, file)
    if found.schema > SCHEMA:
        raise InputError(f"{file}: schema {found.schema} is of a newer refocus; must be {SCHEMA}")
    return found


def _with_schema(old: dict[str, Any]) -> dict[str, Any]:
    """The first `result.json` had no schema, and dictionaries by model inside of each part."""
    curves = {
        which: {
            "levels": old["levels"][which],
            "n": old["n"][which],
            "series": series,
            "summary": old["summary"].get(which, {}),
        }
        for which, series in old["curves"].items()
    }
    headline = old["headline"]
    shared = headline[MODEL]["n"] if AGAINST not in headline else headline[AGAINST]["n"]
    numbers = {
        MODEL: curves[MODEL],
        AGAINST: curves.get(AGAINST),
        "headline": {
            MODEL: headline[MODEL],
            AGAINST: headline.get(AGAINST),
            "change": _old_change(headline, shared) if AGAINST in headline else None,
        },
        "changes": {
            series: [_old_change(cell, shared) for cell in cells]
            for series, cells in old["differences"].items()
        }
        if "differences" in old
        else None,
    }
    kept = ("kind", "about", "source", "xlabel", "unit", "better", "models")
    return {**{key: old[key] for key in kept}, "numbers": numbers, "schema": SCHEMA}


def _old_change(cell: dict[str, Any], n: int) -> dict[str, Any]:
    return {
        "difference": cell["difference"],
        "interval": cell["difference_interval"],
        "n": n,
    }


# --- from records to numbers --------------------------------------------------------------------


def compared(
    records: dict[str, list[ProbeRecord]],
    levels: dict[str, list[Level]],
    counting: Counting,
    extra: Callable[[dict[str, list[float]]], dict[str, float | None]] | None = None,
) -> Numbers:
    """Curves and headline of each model, and where there are two their differences.

    records, levels: "model", and perhaps "against" -> its records, the levels of its series. extra:
    makes further numbers of the means of each series.
    """
    tables = {which: _tables(rows, counting.scale) for which, rows in records.items()}
    curves = {
        which: _curves(tables[which], levels[which], len(rows), counting, extra)
        for which, rows in records.items()
    }
    means = {which: _headline(found, counting) for which, found in tables.items()}
    estimates = {which: _estimate(values, counting) for which, values in means.items()}
    if AGAINST not in records:
        return Numbers(curves[MODEL], None, Compared(estimates[MODEL]), None)
    ours, theirs = shared(records[MODEL], records[AGAINST])
    change = _change(means[MODEL][ours], means[AGAINST][theirs], counting)
    headline = Compared(estimates[MODEL], estimates[AGAINST], change)
    changes = None
    if levels[MODEL] == levels[AGAINST] and set(tables[MODEL]) == set(tables[AGAINST]):
        changes = {
            series: [
                _change(a, b, counting)
                for a, b in zip(table[ours].T, tables[AGAINST][series][theirs].T, strict=True)
            ]
            for series, table in tables[MODEL].items()
        }
    return Numbers(curves[MODEL], curves[AGAINST], headline, changes)


def _curves(
    tables: dict[str, np.ndarray],
    levels: list[Level],
    n: int,
    counting: Counting,
    extra: Callable[[dict[str, list[float]]], dict[str, float | None]] | None,
) -> Curves:
    series = {
        name: [_point(column, counting) for column in table.T] for name, table in tables.items()
    }
    means = {
        name: [np.nan if p.value is None else p.value for p in points]
        for name, points in series.items()
    }
    return Curves(levels, n, series, extra(means) if extra else {})


def _tables(rows: list[ProbeRecord], scale: float) -> dict[str, np.ndarray]:
    """Series -> numbers `[n, levels]`, NaN where there is none."""
    return {
        series: scale * np.array([row.values[series] for row in rows], dtype=float)
        for series in (rows[0].values if rows else {})
    }


def _headline(tables: dict[str, np.ndarray], counting: Counting) -> np.ndarray:
    """Each image's mean over the series and levels that count: `[n]`."""
    wanted = counting.headline or tuple(tables)
    columns = np.concatenate(
        [table[:, counting.first :] for name, table in tables.items() if name in wanted], axis=1
    )
    known = ~np.isnan(columns)
    sums = np.where(known, columns, 0).sum(1)
    return np.where(known.any(1), sums / np.maximum(known.sum(1), 1), np.nan)


def _interval(values: np.ndarray, bounds: Bounds, seed: int) -> Interval | None:
    """None also for values without bounds that are all alike, for which there is nothing to say."""
    if bounds is None:
        if not len(values) or np.ptp(values) == 0:
            return None
        bounds = (-np.inf, np.inf)
    found = mean_interval(values, bounds, seed)
    return None if found is None else (found[0], found[1])


def _estimate(values: np.ndarray, counting: Counting) -> Estimate:
    known = values[~np.isnan(values)]
    mean = float(known.mean()) if len(known) else None
    return Estimate(mean, _interval(known, counting.bounds, counting.seed), len(known))


def _point(values: np.ndarray, counting: Counting) -> Point:
    found, known = _estimate(values, counting), values[~np.isnan(values)]
    deviation = float(known.std()) if len(known) else None
    return Point(found.value, found.interval, found.n, deviation)


def _change(ours: np.ndarray, theirs: np.ndarray, counting: Counting) -> Change:
    change = ours - theirs
    known, bounds = change[~np.isnan(change)], counting.bounds
    both = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    mean = float(known.mean()) if len(known) > 1 else None
    p = flip_chance(known, counting.seed) if len(known) > 1 else None
    return Change(mean, _interval(known, both, counting.seed), len(known), p)


def shared(ours: list[ProbeRecord], theirs: list[ProbeRecord]) -> tuple[list[int], list[int]]:
    """Positions of the images that both models answered, in ours and in theirs."""
    position_of = {row.image: position for position, row in enumerate(theirs)}
    both = [
        (position, position_of[row.image])
        for position, row in enumerate(ours)
        if row.image in position_of
    ]
    return [a for a, _ in both], [b for _, b in both]
