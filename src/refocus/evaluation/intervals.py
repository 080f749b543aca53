"""Means with 95 % intervals, and the tests that go with them.

Values are one number per image; resampling is over images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap

LEVEL = 0.95
_RESAMPLES = 10_000
_TAIL = (1 - LEVEL) / 2
_FEW = 64  # so many distinct values are resampled by their counts
_BINS = 15  # Guo et al., ICML 2017


def mean_interval(
    values: Sequence[float] | np.ndarray, bounds: tuple[float, float], seed: int = 0
) -> list[float] | None:
    """Percentile bootstrap of the mean of values `[n]` (10 000 resamples), as [low, high]; None for
    fewer than two values.

    Where all values are alike a bootstrap has no width, whatever n is. Then the share of images
    that could be different and still leave none of n different (Clopper and Pearson: 1 -
    0.025^(1/n)) times the span between value and bound is added.

    Args:
        bounds: the least and greatest value that is possible.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        return None
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        unseen, value = 1 - _TAIL ** (1 / n), float(distinct[0])
        return [value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value)]
    rng = np.random.default_rng(seed)
    if (
        len(distinct) <= _FEW
        # resampling images is a multinomial draw of the counts: the same distribution, n times
        # cheaper
    ):
        means = rng.multinomial(n, counts / n, size=_RESAMPLES) @ distinct / n
        return [float(q) for q in np.quantile(means, [_TAIL, 1 - _TAIL])]
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=500,
        method="percentile",
        confidence_level=LEVEL,
        rng=rng,
    ).confidence_interval
    return [float(found.low), float(found.high)]


def estimate(
    values: Sequence[float] | np.ndarray, bounds: tuple[float, float], seed: int = 0
) -> dict[str, Any]:
    """{"value": mean, "interval": [low, high], "n"}; None where there is too little."""
    values = np.asarray(values, dtype=float)
    return {
        "value": float(values.mean()) if len(values) else None,
        "interval": mean_interval(values, bounds, seed),
        "n": len(values),
    }


def sums_interval(
    columns: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    resamples: int = 2000,
) -> list[float] | None:
    """Percentile bootstrap over images of a number that is made of sums, such as a ratio: columns
    `[n, k]`, one row per image; statistic: sums `[r, k]` -> `[r]`. Draws in which it is not defined
    (0/0) are left out; None where nothing is left, or all draws agree.
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
    return [float(q) for q in np.quantile(found, [_TAIL, 1 - _TAIL])]


def mcnemar(corrected: int, broken: int) -> float:
    """Exact McNemar test, two-sided: the chance of so uneven a split of the images that changed,
    were both sides as likely.
    """
    return (
        float(binomtest(corrected, corrected + broken, 0.5).pvalue) if corrected + broken else 1.0
    )


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error of the top answer in [0, 1]: 15 bins of equal width (Guo et al.,
    ICML 2017, Eq. 5).

    confidence `[n]` in [0, 1], right `[n]` bool.
    """
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return float(np.abs(np.bincount(bins, confidence - right)).sum() / len(bins))


def calibration(
    answers: Sequence[tuple[np.ndarray, np.ndarray]], seed: int = 0
) -> list[dict[str, Any]]:
    """Calibration error of each model's (confidence, right), and last the difference first minus
    second, with intervals.

    The models answer the same images in the same order. Intervals are basic (reverse percentile)
    bootstraps of 1000 resamples: the estimate is biased upwards, and resampling doubles the bias,
    which the basic interval takes back off. They are rough where the error is near 0
    (docs/evaluation.md); None where all resamples agree.
    """

    def statistics(at: np.ndarray) -> list[float]:
        found = [calibration_error(confidence[at], right[at]) for confidence, right in answers]
        return [*found, found[0] - found[1]] if len(found) == 2 else found

    count = len(answers[0][0])
    if not count:
        return [{"value": None, "interval": None, "n": 0} for _ in range(len(answers) * 2 - 1)]
    values, rng = statistics(np.arange(count)), np.random.default_rng(seed)
    draws = np.array([statistics(rng.integers(0, count, count)) for _ in range(1000)])
    rows = []
    for number, value in enumerate(values):
        low, high = np.quantile(draws[:, number], [_TAIL, 1 - _TAIL])
        least = -1.0 if number == 2 else 0.0
        interval = [max(least, float(2 * value - high)), max(least, float(2 * value - low))]
        rows.append(
            {
                "value": value,
                "interval": interval if np.ptp(draws[:, number]) > 0 else None,
                "n": count,
            }
        )
    return rows
