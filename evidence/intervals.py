"""Intervals over draws and images together, of one method or of the difference of two.

The same test images answer in every draw, so draws and images are crossed: each resample takes
draws with replacement and, of every test set, images with replacement, the same images in all draws
(the pigeonhole bootstrap: Owen, Annals of Applied Statistics 2007). Test sets with the same file
names take the same images. 2.5 and 97.5 % quantiles of 10 000 resamples, seeded.

Five draws are few: resampling them knows 4/5 of their variance, and a normal quantile is too small.
The draws' deviations from their mean are therefore widened, so that where draws alone vary the
interval is as wide as Student's (`widening`).

Axes: D draws, n images, R resamples and, in row 0, what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import norm, t

RESAMPLES = 10_000
_TAIL = 0.025


@dataclass(frozen=True)
class Estimate:
    """A number in percent or points, and its 95 % interval."""

    value: float
    low: float
    high: float


def per_draw(right: np.ndarray, inside: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Accuracy in percent of each draw in each resample, `[R + 1, D]`.

    Args:
        right: right answers, `[D, n]`.
        inside: which images count, `[D, n]`.
        counts: how often each image was taken, `[R + 1, n]`.
    """
    inside = inside.astype(np.float32)
    with np.errstate(invalid="ignore"):  # a resample without any such image says nothing
        found: np.ndarray = 100 * (counts @ (right * inside).T) / (counts @ inside.T)
    return found


def estimate(values: np.ndarray, seed: int = 0) -> Estimate:
    """The mean over draws of what `per_draw` found, or of a difference of two such."""
    draws = values.shape[1]
    if np.isnan(values[0]).all():  # no image counts
        return Estimate(math.nan, math.nan, math.nan)
    centre = values.mean(1, keepdims=True)
    wide = centre + widening(draws) * (values - centre)
    rng = np.random.default_rng(seed)
    taken = rng.multinomial(draws, np.full(draws, 1 / draws), size=len(values) - 1)
    means = (wide[1:] * taken).sum(1) / draws
    low, high = np.nanquantile(means, [_TAIL, 1 - _TAIL])
    return Estimate(float(centre[0, 0]), float(low), float(high))


def widening(draws: int) -> float:
    """Factor on the deviations of few draws: to an unbiased variance, and to Student's quantile."""
    if draws < 2:
        return 1.0
    student = float(t.ppf(1 - _TAIL, draws - 1) / norm.ppf(1 - _TAIL))
    return student * math.sqrt(draws / (draws - 1))


@lru_cache(maxsize=8)
def image_counts(files: str, images: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each image is taken, `[R + 1, n]`: once in row 0; from the file names' digest."""
    rng = np.random.default_rng([seed, int(files, 16)])
    taken = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.concatenate([np.ones((1, images)), taken]).astype(np.float32)


def lowest(values: Sequence[np.ndarray]) -> np.ndarray:
    """The lowest of several accuracies in each draw of each resample, `[R + 1, D]`."""
    found: np.ndarray = np.nanmin(np.stack(list(values)), axis=0)
    return found
