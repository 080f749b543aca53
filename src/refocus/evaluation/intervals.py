"""Means with 95 % intervals, and the tests that go with them.

Values are one number per image; resampling is over images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

from refocus.intervals import LEVEL, mean_interval
from refocus.results import Change, Compared, Estimate, Interval

_TAIL = (1 - LEVEL) / 2
_Z = float(norm.ppf(1 - _TAIL))
_BINS = 10
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
    """The mean of paired changes `[n]`, one per image, with its interval (`mean_interval`)."""
    mean = estimate(changes, bounds, seed)
    return Change(mean.value, mean.interval, mean.n)


def sums_interval(
    columns: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    resamples: int = 2000,
) -> Interval | None:
    """Percentile bootstrap over images of a number that is made of sums, such as a ratio.

    Columns `[n, k]`, one row per image; statistic: sums `[r, k]` -> `[r]`. Draws in which it is not
    defined (0/0) are left out; None where nothing is left, or all draws agree.
    """
    n = len(columns)
    if n < 2:
        return None
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(0, resamples, 100):  # in parts: n times 100 counts at a time
        with np.errstate(divide="ignore", invalid="ignore"):
            draws.append(statistic(rng.multinomial(n, np.full(n, 1 / n), size=100) @ columns))
    found = np.concatenate(draws)
    found = found[np.isfinite(found)]
    if not len(found) or np.ptp(found) == 0:
        return None
    low, high = np.quantile(found, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


def mcnemar(corrected: int, broken: int) -> float:
    """Exact McNemar test, two-sided.

    The chance of so uneven a split of the images that changed, were both sides as likely.
    """
    return (
        float(binomtest(corrected, corrected + broken, 0.5).pvalue) if corrected + broken else 1.0
    )


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Squared calibration error of the top answer.

    The mean over images of the squared gap between confidence and accuracy in the image's bin, with
    10 bins of equal width. It is the reliability term of the Brier score (Murphy, 1973); the bias
    that a squared mean of few images has is taken off, as in Kumar et al. (NeurIPS 2019), so it may
    fall below 0 by chance.

    confidence `[n]` in [0, 1], right `[n]` bool.
    """
    return _Binned.of(confidence, right).error


def calibration(answers: Sequence[tuple[np.ndarray, np.ndarray]]) -> Compared:
    """Squared calibration error of one or two models, each given by (confidence, right).

    With 95 % intervals; the change is the first model's error minus the second's. The models answer
    the same images in the same order.

    Normal intervals. Their variance has the part that vanishes where a model is calibrated and the
    part that does not, so they stay valid at 0, where a bootstrap fails. By simulation they cover
    93 to 99 % at n >= 100 (benchmarks/harm.py; docs/evaluation.md); below that None.
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
    first, second = binned
    value = first.error - second.error
    half = _Z * math.sqrt(_variance(first, second))
    interval = None if few else (max(-1.0, value - half), min(1.0, value + half))
    return Compared(rows[0], rows[1], Change(value, interval, n))


@dataclass(frozen=True)
class _Binned:
    """Answers by bins of confidence: `gap` (confidence minus right) and `bin` of each image `[n]`.

    `count` and `mean` (gap) are one number a bin.
    """

    gap: np.ndarray
    bin: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    error: float

    @classmethod
    def of(cls, confidence: np.ndarray, right: np.ndarray) -> _Binned:
        gap, n = confidence - right, max(1, len(confidence))
        bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        count = np.bincount(bins, minlength=_BINS)
        total, squares = (np.bincount(bins, gap**power, _BINS) for power in (1, 2))
        # over pairs of different images: a bin with one image says nothing
        pairs = (total**2 - squares)[count > 1] / (count[count > 1] - 1)
        return cls(gap, bins, count, total / np.maximum(count, 1), float(pairs.sum() / n))

    @property
    def rest(self) -> np.ndarray:
        """Gap of each image minus the mean gap of its bin, `[n]`."""
        values: np.ndarray = self.gap - self.mean[self.bin]
        return values

    def level_interval(self) -> Interval:
        """All errors t that are within 1.96 standard deviations of the estimate.

        The deviation is that under t; it grows with t.
        """
        n, weight = len(self.gap), self.count * self.mean**2
        spread = np.bincount(self.bin, self.rest**2, _BINS) / np.maximum(self.count - 1, 1)
        slope = float(spread @ weight / weight.sum()) if weight.sum() else float(spread.mean())
        constant = _pure_noise(self, self) + float(np.var(self.mean[self.bin] ** 2)) / n
        middle = self.error + 2 * _Z**2 * slope / n
        under_root = middle**2 - self.error**2 + _Z**2 * constant
        half = math.sqrt(max(0.0, under_root))
        return max(0.0, middle - half), min(1.0, max(0.0, middle + half))


def _pure_noise(one: _Binned, other: _Binned) -> float:
    """Covariance of two estimates where both models are calibrated.

    It is that of the products of pairs of images in a bin.
    """
    shared = np.zeros((_BINS, _BINS))
    np.add.at(shared, (one.bin, other.bin), one.rest * other.rest)
    pairs = np.maximum(np.outer(one.count - 1, other.count - 1), 1)
    return float(2 * (shared**2 / pairs).sum() / len(one.gap) ** 2)


def _variance(one: _Binned, other: _Binned) -> float:
    """Of the difference of two squared errors.

    The linear part is estimated with the noise of the bins' means in it, which is twice the pure
    noise; the larger of the two is taken.
    """
    n = len(one.gap)
    linear = 2 * one.mean[one.bin] * one.rest - 2 * other.mean[other.bin] * other.rest
    noise = _pure_noise(one, one) + _pure_noise(other, other) - 2 * _pure_noise(one, other)
    between = np.var(one.mean[one.bin] ** 2 - other.mean[other.bin] ** 2)
    return max(float((linear**2).sum()) / n**2, noise) + float(between) / n
