"""Means of bounded values: exact bounds, the test that belongs to them, how many images they need.

Values are one number per image. Imports no torch: what `tuning` and `evaluation` both count with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc
from scipy.stats import binomtest, bootstrap, norm, t

from refocus.results import Interval

LEVEL = 0.95
FEW = 30  # below so many values a bootstrap is too sure of itself, and the exact bounds are taken
_RESAMPLES = 10_000
_COMPLETE = 12  # of so many images all swaps are counted
_TAIL = (1 - LEVEL) / 2
_DRAWS = 1_000_000  # that are in memory at a time
_DISTINCT = 64  # so many distinct values are resampled by their counts
_POWER = 0.8  # chance with which `images_needed` is to be enough
_STEP = 0.05  # of the integral in `_chance_below`
_LINE = np.sinh(_STEP * np.arange(400))  # its points on half of the line
_WEIGHTS = _STEP * np.cosh(_STEP * np.arange(400)) * np.where(np.arange(400) == 0, 0.5, 1.0)


# --- one-sided: a promise and its error rate ------------------------------------------------------


def chance(
    values: Sequence[float] | np.ndarray, bounds: tuple[float, float], mean: float = 0.0
) -> float:
    """P-value of the question whether the true mean of values `[n]` is above `mean`.

    Gaffke's bound (Gaffke, "Three test statistics for a nonparametric one-sided hypothesis on the
    mean of a nonnegative variable", Mathematical Methods of Statistics 2005; Learned-Miller and
    Thomas, arXiv 1905.06208): one more value is added, the least that is possible, and the p-value
    is the chance that a randomly weighted mean (weights uniform on the simplex) is at most `mean`.
    For values of two kinds it is the exact binomial test. That it never errs more often than its
    level is proven for these and seen in every simulation for others (docs/evaluation.md), whatever
    the values' distribution; a test that flips signs needs that distribution symmetric.
    """
    distinct, counts = _with_one_more(*_counts(values), bounds[0])
    return _chance_below(distinct - mean, counts)


def lower_bound(
    values: Sequence[float] | np.ndarray, bounds: tuple[float, float], error: float = 1 - LEVEL
) -> float:
    """What the true mean of values `[n]` lies below in at most `error` of all samples.

    It is the mean for which `chance` gives `error`.
    """
    return _lowest(*_counts(values), bounds[0], error)


def upper_bound(
    values: Sequence[float] | np.ndarray, bounds: tuple[float, float], error: float = 1 - LEVEL
) -> float:
    """What the true mean of values `[n]` lies above in at most `error` of all samples."""
    distinct, counts = _counts(values)
    return -_lowest(-distinct, counts, -bounds[1], error)


def _counts(values: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values and how often each is there."""
    return np.unique(np.asarray(values, dtype=float), return_counts=True)


def _with_one_more(
    distinct: np.ndarray, counts: np.ndarray, worst: float
) -> tuple[np.ndarray, np.ndarray]:
    """The worst value that is possible is there once more."""
    found, at = np.unique(np.append(distinct, worst), return_inverse=True)
    return found, np.bincount(at, np.append(counts, 1))


def _lowest(distinct: np.ndarray, counts: np.ndarray, worst: float, error: float) -> float:
    """`lower_bound` of values that are given by how often each is there."""
    distinct, counts = _with_one_more(distinct, counts, worst)
    low, high = float(distinct.min()), float(distinct.max())
    if low == high:
        return low
    found = brentq(
        lambda at: _chance_below(distinct - at, counts) - error,
        low,
        high,
        xtol=1e-9 * (high - low),
    )
    return float(found)


def _chance_below(values: np.ndarray, counts: np.ndarray) -> float:
    """P(sum of G_k v_k <= 0), G_k ~ Gamma(counts_k): how often a randomly weighted mean is below 0.

    Values of two kinds give a beta distribution. For others the moment generating function is
    inverted along the line through its saddle point, where it oscillates least (Daniels,
    "Saddlepoint approximations in statistics", Annals of Mathematical Statistics 1954). Error below
    1e-6, far out and for a million values as well (tests).
    """
    if not (values > 0).any():
        return 1.0
    if not (values < 0).any():
        return 0.0
    if len(values) == 2:
        (low, high), (of_low, of_high) = values, counts
        return float(betainc(of_high, of_low, -low / (high - low)))
    at = _saddle(values, counts)
    pull = values / (1 - at * values)
    scale = 1 / math.sqrt(float(counts @ pull**2))
    product = np.outer(_LINE, scale * pull)
    angle, size = np.arctan(product) @ counts, 0.5 * np.log1p(product**2) @ counts
    size += float(counts @ np.log1p(-at * values))
    line = scale * _LINE
    waves = (at * np.cos(angle) + line * np.sin(angle)) / (at**2 + line**2)
    integral = scale * float(_WEIGHTS @ (np.exp(-size) * waves)) / math.pi
    return min(1.0, max(0.0, -integral if at < 0 else 1 - integral))


def _saddle(values: np.ndarray, counts: np.ndarray) -> float:
    """Where the sum's moment generating function is least, but not at its pole 0."""
    low, high = float(values.min()), float(values.max())

    def slope(at: float) -> float:  # of its logarithm, times what is 0 at both ends
        rest = (1 - at * low) * (1 - at * high)
        return rest * float(counts @ (values / (1 - at * values)))

    ends = (1 - 1e-12) / low, (1 - 1e-12) / high
    if slope(ends[0]) >= 0:
        return ends[0]
    if slope(ends[1]) <= 0:
        return ends[1]
    found = float(brentq(slope, *ends, xtol=1e-13 * (ends[1] - ends[0])))
    least = 0.5 / math.sqrt(float(counts @ values**2))
    return found if abs(found) > least else math.copysign(least, found)


def images_needed(change: float, variance: float, limit: float) -> int | None:
    """Images with which the 95 % bound of a mean change is above `limit` with a chance of 80 %.

    `change` is the true mean and `variance` that of one image, as shares of 1; None where no number
    is enough. The normal approximation, and as a floor the number with which no change at all is
    enough.
    """
    room = change - limit
    if room <= 0:
        return None
    quantiles = float(norm.ppf(LEVEL) + norm.ppf(_POWER))
    floor = math.log(1 - LEVEL) / math.log(1 - min(room, 1 - 1e-9))
    return math.ceil(max(floor, variance * (quantiles / room) ** 2))


def counted(n: int) -> str:
    """A number of images as tables show it, marked where it is too small to rely on."""
    return f"{n} (few)" if n < FEW else str(n)


# --- two-sided: is it a change? -------------------------------------------------------------------


@lru_cache(maxsize=4096)  # many classes have the same split
def mcnemar(corrected: int, broken: int) -> float:
    """Exact McNemar test, two-sided.

    The chance of so uneven a split of the images that changed, were both sides as likely.
    """
    return (
        float(binomtest(corrected, corrected + broken, 0.5).pvalue) if corrected + broken else 1.0
    )


def flip_chance(changes: Sequence[float] | np.ndarray, seed: int = 0) -> float:
    """P-value, two-sided, of paired changes `[n]`: how often would chance move the sum so far?

    The exact test that flips signs (Fisher, "The Design of Experiments", 1935, section 21): were
    the two models alike, each image's change would be as likely the other way round. Changes of one
    size, such as of answers right or wrong, make it McNemar's exact test. All flips of up to 12
    images are counted; of more, 10 000 drawn ones (seeded).
    """
    column = np.asarray(changes, dtype=float)[:, None]
    moved = column[column != 0]
    if len(moved) and np.ptp(np.abs(moved)) <= 1e-9 * np.abs(moved).max():
        return mcnemar(int((moved > 0).sum()), int((moved < 0).sum()))
    return swap_chance(column, np.zeros_like(column), lambda sums: sums[:, 0], seed)


def swap_chance(
    model: np.ndarray,
    against: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
) -> float:
    """`flip_chance` of the difference of two models in a number that is made of sums.

    model, against: `[n, k]`, one row per image; statistic: sums `[r, k]` -> `[r]`. The rows of an
    image are swapped. Swaps for which the number is not defined (0/0) count as far.
    """
    differ = (model != against).any(1)
    step = (against - model)[differ]
    own, other = model.sum(0), against.sum(0)

    def far(moved: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            moves: np.ndarray = np.abs(statistic(own + moved) - statistic(other - moved))
        return moves

    seen = float(far(np.zeros((1, len(own))))[0])
    if not len(step) or math.isnan(seen):
        return 1.0
    hits = total = 0
    for swapped in _swaps(len(step), seed):
        hits += int((~(far(swapped @ step) < seen * (1 - 1e-9))).sum())
        total += len(swapped)
    drawn = len(step) > _COMPLETE  # what was seen is one of the ways as well
    return (hits + drawn) / (total + drawn)


def _swaps(n: int, seed: int) -> Iterator[np.ndarray]:
    """Which of n images are swapped, 0 or 1 `[r, n]`: every way, or many that are drawn."""
    if n <= _COMPLETE:
        yield np.array(list(product((0.0, 1.0), repeat=n)))
        return
    rng, part = np.random.default_rng(seed), max(1, min(_RESAMPLES, _DRAWS // n))
    for start in range(0, _RESAMPLES, part):
        yield rng.integers(0, 2, size=(min(part, _RESAMPLES - start), n)).astype(float)


# --- two-sided: an interval beside a number -------------------------------------------------------


def mean_interval(
    values: Sequence[float] | np.ndarray, bounds: tuple[float, float], seed: int = 0
) -> Interval | None:
    """95 % interval of the mean of values `[n]`; None for fewer than two values.

    `bounds` are the least and greatest value that is possible. Values that are all at a bound, such
    as answers right or wrong, get Clopper and Pearson's interval ("The use of confidence or
    fiducial limits illustrated in the case of the binomial", Biometrika 1934) at every n. Others
    get the percentile bootstrap (10 000 resamples, seeded) where at least 30 of them differ from
    the commonest value. Where fewer do, as with paired changes of few images, or where there are
    fewer than 30 values, a bootstrap is too narrow: then `lower_bound` and `upper_bound` at 2.5 %
    each, which for values of two kinds at the bounds are Clopper and Pearson's. Values without
    bounds get the bootstrap from 30 on and below that Student's interval.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        return None
    distinct, counts = _counts(values)
    if len(distinct) == 1:
        unseen, value = 1 - _TAIL ** (1 / n), float(distinct[0])
        return value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value)
    if n < FEW and not np.isfinite(bounds).all():
        return _student(values, bounds)
    if len(distinct) <= _DISTINCT:  # many classes have the same counts
        return _counted(tuple(distinct.tolist()), tuple(counts.tolist()), bounds, seed)
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, min(500, _DRAWS // n)),
        method="percentile",
        confidence_level=LEVEL,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


@lru_cache(maxsize=4096)
def _counted(
    distinct: tuple[float, ...], counts: tuple[int, ...], bounds: tuple[float, float], seed: int
) -> Interval:
    """`mean_interval` of values that are given by how often each is there."""
    n = sum(counts)
    few = n - max(counts) < FEW or set(distinct) <= set(bounds)
    if few and np.isfinite(bounds).all():
        kinds, often = np.array(distinct), np.array(counts)
        low = _lowest(kinds, often, bounds[0], _TAIL)
        return low, -_lowest(-kinds, often, -bounds[1], _TAIL)
    # resampling images is a multinomial draw of the counts: the same distribution, n times cheaper
    drawn = np.random.default_rng(seed).multinomial(n, np.array(counts) / n, size=_RESAMPLES)
    low, high = np.quantile(drawn @ np.array(distinct) / n, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


def _student(values: np.ndarray, bounds: tuple[float, float]) -> Interval:
    half = float(t.ppf(1 - _TAIL, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    mean = float(values.mean())
    return max(bounds[0], mean - half), min(bounds[1], mean + half)


def crossed_interval(values: np.ndarray, bounds: tuple[float, float]) -> Interval | None:
    """95 % interval of the mean of values `[draws, images]`, over other draws and other images.

    All draws answer the same images, so the two are crossed: the variance of the mean is that of
    the draws' means plus that of the images' means, less the part that both hold (Owen, "The
    pigeonhole bootstrap", Annals of Applied Statistics 2007). Student's quantile with
    Satterthwaite's degrees of freedom, since draws are few and a bootstrap over three would be far
    too narrow. Never narrower than the interval over images of these draws (`mean_interval`). None
    for fewer than two draws or images.
    """
    draws, images = values.shape
    of_images = values.mean(0) if draws else np.zeros(0)
    inner = mean_interval(of_images, bounds)
    if draws < 2 or inner is None:
        return None
    mean = float(values.mean())
    by_draw = float(values.mean(1).var(ddof=1)) / draws
    by_image = float(of_images.var(ddof=1)) / images
    rest = values - values.mean(1, keepdims=True) - of_images + mean
    both = float((rest**2).sum()) / ((draws - 1) * (images - 1)) / (draws * images)
    variance = max(by_draw + by_image - both, by_draw, by_image)
    if variance == 0:
        return inner
    freedom = variance**2 / (by_draw**2 / (draws - 1) + by_image**2 / (images - 1))
    half = float(t.ppf(1 - _TAIL, freedom)) * math.sqrt(variance)
    return (
        max(bounds[0], min(inner[0], mean - half)),
        min(bounds[1], max(inner[1], mean + half)),
    )
