"""Numbers of all images together, such as an area under a curve: no means over images.

Their intervals come from a bootstrap in which each group of images is drawn anew, the same draws
for both models. Axes: n images, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from refocus.intervals import FEW
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
_COUNTS = 4_000_000  # of resampled images that are in memory at a time
_TAIL = 2.5  # percent
Columns = Mapping[str, np.ndarray]  # series -> a number for each image `[n]`


@dataclass(frozen=True)
class Pooled:
    """How such numbers are made.

    numbers: columns and how often each image counts `[R, n]` -> series -> shares `[R, levels]`.
    group: the column that says by 0 and 1 which group an image is of.
    """

    numbers: Callable[[Columns, np.ndarray], dict[str, np.ndarray]]
    group: str


@dataclass(frozen=True)
class _Found:
    """Percent: the number of the images themselves in the first row, then of each resample."""

    series: dict[str, np.ndarray]  # `[1 + R, levels]`
    least: int  # images in the smaller group
    n: int

    def headline(self, counting: Counting) -> np.ndarray:
        """The mean over the series and levels that count: `[1 + R]`."""
        wanted = counting.headline or tuple(self.series)
        columns = [self.series[name][:, counting.first :] for name in wanted]
        means: np.ndarray = np.concatenate(columns, axis=1).mean(1)
        return means


def compared(
    records: dict[str, list[ProbeRecord]],
    levels: dict[str, list[Level]],
    counting: Counting,
    pooled: Pooled,
) -> Numbers:
    """As `results.compared`, of numbers that are made of all images together."""
    found = {which: _found(rows, pooled, counting.seed) for which, rows in records.items()}
    curves = {which: Curves(levels[which], one.n, _points(one), {}) for which, one in found.items()}
    estimates = {
        which: _estimate(one.headline(counting), one.least, one.n) for which, one in found.items()
    }
    if AGAINST not in records:
        return Numbers(curves[MODEL], None, Compared(estimates[MODEL]), None)
    ours, theirs = shared(records[MODEL], records[AGAINST])
    both = (
        _found([records[MODEL][at] for at in ours], pooled, counting.seed),
        _found([records[AGAINST][at] for at in theirs], pooled, counting.seed),
    )
    heads = [one.headline(counting) for one in both]
    changes = {
        series: [
            _change(a, b, both[0].least, both[0].n)
            for a, b in zip(columns.T, both[1].series[series].T, strict=True)
        ]
        for series, columns in both[0].series.items()
    }
    change = _change(heads[0], heads[1], both[0].least, both[0].n)
    headline = Compared(estimates[MODEL], estimates[AGAINST], change)
    return Numbers(curves[MODEL], curves[AGAINST], headline, changes)


def _found(rows: Sequence[ProbeRecord], pooled: Pooled, seed: int) -> _Found:
    columns = {
        name: np.array([row.values[name][0] for row in rows], dtype=float)
        for name in rows[0].values
    }
    outside = columns[pooled.group] > 0.5
    groups = (~outside, outside)
    tables = [pooled.numbers(columns, weights) for weights in _weights(groups, seed)]
    series = {name: 100 * np.concatenate([t[name] for t in tables]) for name in tables[0]}
    return _Found(series, min(int(group.sum()) for group in groups), len(rows))


def _weights(groups: tuple[np.ndarray, np.ndarray], seed: int) -> Iterator[np.ndarray]:
    """How often each image counts: once, and then `[R, n]` of so many resamples at a time."""
    rng, n = np.random.default_rng(seed), len(groups[0])
    yield np.ones((1, n))
    part = max(1, min(_RESAMPLES, _COUNTS // n))
    for start in range(0, _RESAMPLES, part):
        weights = np.empty((min(part, _RESAMPLES - start), n))
        for group in groups:
            size = int(group.sum())
            drawn = rng.multinomial(size, np.full(size, 1 / size), size=len(weights))
            weights[:, group] = drawn
        yield weights


def _points(found: _Found) -> dict[str, list[Point]]:
    return {
        name: [
            Point(float(column[0]), _interval(column, found.least), found.n, None)
            for column in table.T
        ]
        for name, table in found.series.items()
    }


def _estimate(column: np.ndarray, least: int, n: int) -> Estimate:
    return Estimate(float(column[0]), _interval(column, least), n)


def _interval(column: np.ndarray, least: int) -> Interval:
    """Of the resamples; with few images or none that differ, never narrower than the exact one.

    That one takes the number for a share of the smaller group's images (Clopper and Pearson). It
    holds for an area under the curve as well, which uses more than that many separate pairs.
    """
    low, high = (float(x) for x in np.percentile(column[1:], [_TAIL, 100 - _TAIL]))
    if least >= FEW and low < high:
        return low, high
    exact = _exact(float(column[0]) / 100, least)
    return min(low, exact[0]), max(high, exact[1])


def _exact(share: float, n: int) -> Interval:
    right = share * n
    low = beta.ppf(_TAIL / 100, right, n - right + 1) if right > 0 else 0.0
    high = beta.ppf(1 - _TAIL / 100, right + 1, n - right) if right < n else 1.0
    return 100 * float(low), 100 * float(high)


def _change(ours: np.ndarray, theirs: np.ndarray, least: int, n: int) -> Change:
    difference = ours - theirs
    low, high = (float(x) for x in np.percentile(difference[1:], [_TAIL, 100 - _TAIL]))
    if least < FEW or low == high:  # as wide as both intervals allow
        a, b = _interval(ours, least), _interval(theirs, least)
        low, high = min(low, a[0] - b[1]), max(high, a[1] - b[0])
    return Change(float(difference[0]), (low, high), n)
