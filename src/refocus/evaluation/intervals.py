"""Means with 95 % intervals, and the tests that go with them.

Values are one number per image; resampling is over images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from refocus.intervals import FEW, LEVEL, flip_chance, mean_interval
from refocus.results import Change, Compared, Estimate, Interval

_TAIL = (1 - LEVEL) / 2
_Z = float(norm.ppf(1 - _TAIL))
_BINS = 10
_RESAMPLES = 2000
_COUNTS = 1_000_000  # of resampled images that are in memory at a time
_CALIBRATED = 100  # images below which the simulation does not vouch for the intervals


def estimate(
    values: Sequence[float] | np.ndarray, bounds: tuple[float, float], seed: int = 0
) -> Estimate:
    """The mean of values `[n]` with its interval (`mean_interval`).

    None where there is too little.
    """
    values = np.asarray(values, dtype=float)
    mean = float(values.mean()) if len(values) else None
    return Estimate(mean, mean_interval(values, bounds, seed), len(values))


def mean_change(
    changes: Sequence[float] | np.ndarray, bounds: tuple[float, float], seed: int = 0
) -> Change:
    """The mean of paired changes `[n]`, one per image, with interval and p-value.

    See `mean_interval` and `flip_chance`.
    """
    mean = estimate(changes, bounds, seed)
    return Change(mean.value, mean.interval, mean.n, flip_chance(changes, seed))


def sums_interval(
    columns: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    worst: tuple[Sequence[float], Sequence[float]],
    seed: int = 0,
    *,
    telling: int | None = None,
) -> Interval | None:
    """95 % interval over images of a number that is made of sums, such as a ratio.

    Columns `[n, k]`, one row per image; statistic: sums `[r, k]` -> `[r]`. worst: the rows of an
    image that lowers and raises the number most. telling: how many images have a say in it or, of a
    change, differ between the models; all if not given.

    Percentile bootstrap (2000 resamples, seeded), which is too narrow with fewer than 30 telling
    images: then Gaffke's bounds as in `intervals.chance`, with randomly weighted sums in place of
    means and `worst` once more on its side (tests simulate how often they hold). Draws in which the
    number is not defined (0/0) are left out; None where nothing is left, or all draws agree.
    """
    n = len(columns)
    if n < 2:
        return None
    rng = np.random.default_rng(seed)
    if (n if telling is None else telling) < FEW:
        sides = [_drawn(np.vstack([columns, row]), statistic, _weights, rng) for row in worst]
    else:
        sides = [_drawn(columns, statistic, _counts, rng)] * 2
    if any(not len(side) or np.ptp(side) == 0 for side in sides):
        return None
    low, high = (np.quantile(s, q) for s, q in zip(sides, (_TAIL, 1 - _TAIL), strict=True))
    return float(low), float(high)


def _counts(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """How often each image is drawn, `[size, n]`."""
    found: np.ndarray = rng.multinomial(n, np.full(n, 1 / n), size=size)
    return found


def _weights(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Uniform on the simplex but for the scale, `[size, n]`."""
    found: np.ndarray = rng.standard_exponential((size, n))
    return found


def _drawn(
    columns: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    draw: Callable[[np.random.Generator, int, int], np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """The number in each of 2000 draws where it is defined."""
    n, draws = len(columns), []
    part = max(1, min(100, _COUNTS // n))
    for start in range(0, _RESAMPLES, part):
        with np.errstate(divide="ignore", invalid="ignore"):
            draws.append(statistic(draw(rng, n, min(part, _RESAMPLES - start)) @ columns))
    found = np.concatenate(draws)
    defined: np.ndarray = found[np.isfinite(found)]
    return defined


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Squared calibration error of the top answer.

    The mean over images of the squared gap between confidence and accuracy in the image's bin, with
    10 bins of equally many images (Roelofs et al., AISTATS 2022; fewer bins below 20 images; images
    of equal confidence share a bin). It is the reliability term of the Brier score (Murphy, 1973);
    the bias that a squared mean of few images has is taken off, as in Kumar et al. (NeurIPS 2019),
    so it may fall below 0 by chance.

    confidence `[n]` in [0, 1], right `[n]` bool.
    """
    return _Binned.of(confidence, right).error


def calibration(answers: Sequence[tuple[np.ndarray, np.ndarray]]) -> Compared:
    """Squared calibration error of one or two models, each given by (confidence, right).

    With 95 % intervals; the change is the first model's error minus the second's. The models answer
    the same images in the same order.

    The intervals hold every value that lies within 1.96 standard deviations of the estimate, where
    the deviation is the one under that value: near 0 a part of it remains that a bootstrap misses.
    By simulation they cover 93 to 97 % from 100 images on (benchmarks/harm.py; docs/results.md);
    below that None.
    """
    n = len(answers[0][0])
    if not n:
        nothing = Estimate(None, None, 0)
        both = len(answers) == 2
        return Compared(nothing, nothing, Change(None, None, 0)) if both else Compared(nothing)
    binned = [_Binned.of(*answer) for answer in answers]
    few = n < _CALIBRATED
    rows = [Estimate(one.error, None if few else one.level_interval(), n) for one in binned]
    if len(binned) == 1:
        return Compared(rows[0])
    interval = None if few else _change_interval(*binned)
    return Compared(rows[0], rows[1], Change(binned[0].error - binned[1].error, interval, n))


@dataclass(frozen=True)
class _Binned:
    """Answers in bins of equally many images, by confidence.

    bin: of each image `[n]`. rest: its gap (confidence minus right) minus the mean gap of its bin,
    `[n]`. count, mean (gap): of each bin. expected: variance of the gap in each bin if the model
    were as far off everywhere as it is on average. It is less noisy than the variance that is seen,
    and unlike that it does not fall where a bin is right throughout by chance.
    """

    bin: np.ndarray
    rest: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    expected: np.ndarray
    error: float

    @classmethod
    def of(cls, confidence: np.ndarray, right: np.ndarray) -> _Binned:
        gap, n = confidence - right, len(confidence)
        number = max(1, min(_BINS, n // 2))
        # the middle rank of equals: apart, they would lie by the order of the files, so by class
        ranked = np.sort(confidence)
        low = np.searchsorted(ranked, confidence, "left")
        high = np.searchsorted(ranked, confidence, "right") - 1
        bins = (low + high) // 2 * number // max(1, n)
        count = np.maximum(np.bincount(bins, minlength=number), 1)
        total, squares = (np.bincount(bins, gap**power, number) for power in (1, 2))
        # over pairs of different images: one image alone says nothing
        error = float(((total**2 - squares) / np.maximum(count - 1, 1)).sum() / max(1, n))
        chance = np.clip(confidence - total.sum() / max(1, n), 1 / (n + 1), n / (n + 1))
        expected = np.bincount(bins, chance * (1 - chance), number) / count
        return cls(bins, gap - (total / count)[bins], count, total / count, expected, error)

    def level_interval(self) -> Interval:
        n, squared = len(self.bin), self.count * self.mean**2
        noise = 2 * float((self.expected**2).sum()) / n**2
        slope = 4 * float(squared @ self.expected) / max(float(squared.sum()), 1e-12) / n
        low, high = _within(self.error, noise + slope * self.error, slope, 0.0)
        return max(0.0, low), min(1.0, max(0.0, high))


def _within(value: float, at_value: float, slope: float, least: float) -> Interval:
    """All t within 1.96 standard deviations of a value.

    Under t the variance is `at_value + slope * (t - value)`, and never below `least`.
    """
    bend, floor = _Z**2 * slope / 2, _Z * math.sqrt(least)
    half = math.sqrt(max(0.0, bend**2 + _Z**2 * at_value))
    return value - max(half - bend, floor), value + max(half + bend, floor)


def _change_interval(first: _Binned, second: _Binned) -> Interval:
    """Of the difference of two squared errors, a quadratic form of the means of all bins.

    Its variance has a linear part, which depends on the true gaps, and pure noise. The linear part
    is estimated with twice the pure noise in it. With all of that taken off, the variance scatters
    so much that intervals hold 91 to 96 % of the truths; with 1.4 times the noise taken off and a
    variance of at least three quarters of it they hold 94 to 97 % (docs/results.md).
    """
    both, n = (first, second), len(first.bin)
    weight = np.concatenate([first.count, -second.count]) / n
    mean = np.concatenate([first.mean, second.mean])
    spread = _spread(both)
    form, pull = weight[:, None] * spread, weight * mean
    noise = max(0.0, 2 * float(np.trace(form @ form)))  # below 0 by rounding alone
    linear = 4 * float(pull @ spread @ pull)
    # how far that variance goes with the estimate: their covariance over the variance
    cubes = 16 * float(pull @ spread @ form @ pull) + 8 * float(np.trace(form @ form @ form))
    slope = cubes / max(linear + noise, 1e-12)
    value = first.error - second.error
    low, high = _within(value, linear - 0.4 * noise, slope, 0.75 * noise)
    return max(-1.0, low), min(1.0, high)


def _spread(both: tuple[_Binned, _Binned]) -> np.ndarray:
    """Covariance of the mean gaps of the bins of two models, `[bins of both, bins of both]`.

    The variance of a bin is the mean of what is seen and what is expected: where wrong answers are
    rare, the one goes too far with the gap that is seen and the other not far enough.
    """
    columns, variances = [], []
    for one in both:
        size, pairs = len(one.count), one.count * np.maximum(one.count - 1, 1)
        seen = np.bincount(one.bin, one.rest**2, size) / pairs
        taken = (seen + one.expected / one.count) / 2
        scale = np.sqrt(taken / np.where(seen > 0, seen, np.inf) / pairs)
        columns.append((np.arange(size) == one.bin[:, None]) * (one.rest * scale[one.bin])[:, None])
        variances.append(taken)
    rests = np.concatenate(columns, axis=1)
    spread: np.ndarray = rests.T @ rests
    np.fill_diagonal(spread, np.concatenate(variances))
    return spread
