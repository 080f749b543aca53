"""Numbers of all images together in which no image may be drawn twice, such as the strongest few.

Their intervals come from leaving out parts of the images (delete-a-group jackknife; Shao and Wu,
Annals of Statistics 1989), the same parts for both models. Axes: n images, P parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from refocus.intervals import FEW, LEVEL
from refocus.probes.results import (
    AGAINST,
    MODEL,
    Counting,
    Curves,
    Level,
    Numbers,
    Point,
    shared,
)
from refocus.records import ProbeRecord
from refocus.results import Change, Compared, Estimate, Interval

_PARTS = 20
_REACH = float(t.ppf((1 + LEVEL) / 2, _PARTS - 1))


@dataclass(frozen=True)
class LeftOut:
    """How such numbers are made.

    numbers: records, which of them count, bool `[n]`, and the seed -> series -> shares `[levels]`,
    NaN where there are too few.
    """

    numbers: Callable[[Sequence[ProbeRecord], np.ndarray, int], dict[str, np.ndarray]]


Series = dict[str, np.ndarray]  # percent, of all images in the first row: `[1 + P, levels]`


def compared(
    records: dict[str, list[ProbeRecord]],
    levels: dict[str, list[Level]],
    counting: Counting,
    made: LeftOut,
) -> Numbers:
    """As `results.compared`, of numbers that are made of all images together."""
    found = {which: _found(rows, made, counting.seed) for which, rows in records.items()}
    curves, estimates = {}, {}
    for which, series in found.items():
        n = len(records[which])
        points = {name: [_point(c, n) for c in table.T] for name, table in series.items()}
        curves[which] = Curves(levels[which], n, points, {})
        estimates[which] = _estimate(_headline(series, counting), n)
    if AGAINST not in records:
        return Numbers(curves[MODEL], None, Compared(estimates[MODEL]), None)
    ours, theirs = shared(records[MODEL], records[AGAINST])
    one = _found([records[MODEL][at] for at in ours], made, counting.seed)
    other = _found([records[AGAINST][at] for at in theirs], made, counting.seed)
    changes = {
        name: [_change(column, len(ours)) for column in (one[name] - other[name]).T] for name in one
    }
    change = _change(_headline(one, counting) - _headline(other, counting), len(ours))
    headline = Compared(estimates[MODEL], estimates[AGAINST], change)
    return Numbers(curves[MODEL], curves[AGAINST], headline, changes)


def _found(rows: Sequence[ProbeRecord], made: LeftOut, seed: int) -> Series:
    part = np.random.default_rng(seed).permutation(len(rows)) % _PARTS
    tables = [made.numbers(rows, part != number, seed) for number in (-1, *range(_PARTS))]
    return {name: 100 * np.stack([table[name] for table in tables]) for name in tables[0]}


def _headline(series: Series, counting: Counting) -> np.ndarray:
    """The mean over the series and levels that count and have a number: `[1 + P]`."""
    wanted = counting.headline or tuple(series)
    columns = np.concatenate([series[name][:, counting.first :] for name in wanted], axis=1)
    known = columns[:, ~np.isnan(columns).any(axis=0)]
    return known.mean(1) if known.shape[1] else np.full(1 + _PARTS, np.nan)


def _interval(column: np.ndarray, n: int) -> Interval | None:
    """None with few images, of which a part may be one."""
    if n < FEW or np.isnan(column).any():
        return None
    parts = column[1:]
    error = math.sqrt((_PARTS - 1) / _PARTS * float(((parts - parts.mean()) ** 2).sum()))
    return float(column[0]) - _REACH * error, float(column[0]) + _REACH * error


def _estimate(column: np.ndarray, n: int) -> Estimate:
    value, interval = float(column[0]), _interval(column, n)
    if interval is not None:  # of a share
        interval = max(0.0, interval[0]), min(100.0, interval[1])
    return Estimate(None if math.isnan(value) else value, interval, n)


def _point(column: np.ndarray, n: int) -> Point:
    found = _estimate(column, n)
    return Point(found.value, found.interval, n, None)


def _change(column: np.ndarray, n: int) -> Change:
    value = float(column[0])
    return Change(None if math.isnan(value) else value, _interval(column, n), n)
