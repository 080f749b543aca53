"""Numbers of all images together, such as an area under a curve: no means over images.

Their intervals are Gaffke's bounds (`intervals.chance`) with randomly weighted images in place of
means: each group holds one more image, whose score is the lowest or the highest of all. The weights
are the same for both models. Axes: n images, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

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

_RESAMPLES = 2000
_SWAPS = 999
_COUNTS = 4_000_000  # of resampled images that are in memory at a time
_TAIL = 2.5  # percent
Columns = Mapping[str, np.ndarray]  # series -> a number for each image `[n]`


@dataclass(frozen=True)
class Pooled:
    """How such numbers are made.

    numbers: columns and how much each image counts `[R, n]` -> series -> shares `[R, levels]`. They
    depend on the order of the scores in a column alone. group: the column that says by 0 and 1
    which group an image is of.
    """

    numbers: Callable[[Columns, np.ndarray], dict[str, np.ndarray]]
    group: str


@dataclass(frozen=True)
class _Found:
    """Percent.

    seen: of the images themselves. ends: of each resample, where the image that was added to the
    first group has the lowest score and that of the second the highest, and the other way round.
    """

    seen: dict[str, np.ndarray]  # `[1, levels]`
    ends: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]  # each `[R, levels]`
    n: int

    def headline(self, counting: Counting) -> _Column:
        """The mean over the series and levels that count."""
        wanted = counting.headline or tuple(self.seen)

        def mean(tables: dict[str, np.ndarray]) -> np.ndarray:
            columns = [tables[name][:, counting.first :] for name in wanted]
            means: np.ndarray = np.concatenate(columns, axis=1).mean(1)
            return means

        return _Column(float(mean(self.seen)[0]), (mean(self.ends[0]), mean(self.ends[1])), self.n)

    def columns(self, name: str) -> list[_Column]:
        """Those of a series, by level."""
        seen, (first, second) = self.seen[name], (end[name] for end in self.ends)
        return [
            _Column(float(seen[0, at]), (first[:, at], second[:, at]), self.n)
            for at in range(seen.shape[1])
        ]


@dataclass(frozen=True)
class _Column:
    """One number: as seen, and of the resamples at both ends, each `[R]`."""

    seen: float
    ends: tuple[np.ndarray, np.ndarray]
    n: int

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.seen, _interval(self.ends, 0.0), self.n)

    def minus(self, other: _Column, p: float) -> Change:
        """The added image is at one end for this model, and at the other end for the other."""
        ends = (self.ends[0] - other.ends[1], self.ends[1] - other.ends[0])
        return Change(self.seen - other.seen, _interval(ends, -100.0), self.n, p)


def compared(
    records: dict[str, list[ProbeRecord]],
    levels: dict[str, list[Level]],
    counting: Counting,
    pooled: Pooled,
) -> Numbers:
    """As `results.compared`, of numbers that are made of all images together."""
    found = {which: _found(rows, pooled, counting.seed) for which, rows in records.items()}
    curves = {which: Curves(levels[which], one.n, _points(one), {}) for which, one in found.items()}
    estimates = {which: one.headline(counting).estimate for which, one in found.items()}
    if AGAINST not in records:
        return Numbers(curves[MODEL], None, Compared(estimates[MODEL]), None)
    ours, theirs = shared(records[MODEL], records[AGAINST])
    rows = [records[MODEL][at] for at in ours], [records[AGAINST][at] for at in theirs]
    one, other = (_found(some, pooled, counting.seed) for some in rows)
    swapped = _swapped(*rows, pooled, counting.seed)
    changes = {
        series: [
            a.minus(b, _chance(a.seen - b.seen, moved))
            for a, b, moved in zip(
                one.columns(series), other.columns(series), swapped.columns(series), strict=True
            )
        ]
        for series in one.seen
    }
    a, b = one.headline(counting), other.headline(counting)
    change = a.minus(b, _chance(a.seen - b.seen, swapped.headline(counting)))
    headline = Compared(estimates[MODEL], estimates[AGAINST], change)
    return Numbers(curves[MODEL], curves[AGAINST], headline, changes)


def _table(rows: Sequence[ProbeRecord]) -> dict[str, np.ndarray]:
    return {
        name: np.array([row.values[name][0] for row in rows], dtype=float)
        for name in rows[0].values
    }


def _found(rows: Sequence[ProbeRecord], pooled: Pooled, seed: int) -> _Found:
    columns, n = _table(rows), len(rows)
    seen = pooled.numbers(columns, np.ones((1, n)))
    ends = []
    for added in ((-np.inf, np.inf), (np.inf, -np.inf)):
        more = {name: np.append(column, added) for name, column in columns.items()}
        more[pooled.group] = np.append(columns[pooled.group], (0, 1))
        parts = [pooled.numbers(more, weights) for weights in _weights(n + 2, seed)]
        ends.append({name: 100 * np.concatenate([part[name] for part in parts]) for name in seen})
    return _Found({name: 100 * of for name, of in seen.items()}, (ends[0], ends[1]), n)


def _weights(n: int, seed: int) -> Iterator[np.ndarray]:
    """How much each image counts, `[R, n]` of so many resamples at a time."""
    rng = np.random.default_rng(seed)
    part = max(1, min(_RESAMPLES, _COUNTS // n))
    for start in range(0, _RESAMPLES, part):
        yield rng.standard_exponential((min(part, _RESAMPLES - start), n))


def _swapped(
    ours: Sequence[ProbeRecord], theirs: Sequence[ProbeRecord], pooled: Pooled, seed: int
) -> _Found:
    """Differences where the models' scores of random images are swapped, as ranks: at both ends.

    Ranks, since scores of two models may have other scales (Venkatraman and Begg, Biometrika 1996).
    """
    rng, once = np.random.default_rng(seed), np.ones((1, len(ours)))
    a, b = _table(ours), _table(theirs)
    group = {pooled.group: a[pooled.group]}
    names = [name for name in a if name != pooled.group]
    ranks = [(name, rankdata(a[name]), rankdata(b[name])) for name in names]
    drawn = []
    for _ in range(_SWAPS):
        swap = rng.random(len(ours)) < 0.5
        sides = (
            {name: np.where(swap, y, x) for name, x, y in ranks},
            {name: np.where(swap, x, y) for name, x, y in ranks},
        )
        one, other = (pooled.numbers({**side, **group}, once) for side in sides)
        drawn.append({name: 100 * (one[name] - other[name]) for name in one})
    tables = {name: np.concatenate([table[name] for table in drawn]) for name in drawn[0]}
    return _Found(tables, (tables, tables), len(ours))


def _chance(difference: float, swapped: _Column) -> float:
    """Share of the swaps with a difference as large as that seen, two-sided."""
    far = np.abs(swapped.ends[0]) >= abs(difference) - 1e-9
    return float((far.sum() + 1) / (len(far) + 1))


def _points(found: _Found) -> dict[str, list[Point]]:
    return {
        name: [Point(c.seen, _interval(c.ends, 0.0), c.n, None) for c in found.columns(name)]
        for name in found.seen
    }


def _interval(ends: tuple[np.ndarray, np.ndarray], least: float) -> Interval:
    """From the lower quantile of the lower end to the upper quantile of the higher one.

    Within what is possible, which rounding may leave: from least to 100.
    """
    low = min(float(np.percentile(end, _TAIL)) for end in ends)
    high = max(float(np.percentile(end, 100 - _TAIL)) for end in ends)
    return max(least, low), min(100.0, high)
