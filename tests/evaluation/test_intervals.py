"""Intervals against scipy's bootstrap, exact bounds and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from refocus.evaluation.intervals import (
    calibration,
    calibration_error,
    estimate,
    mcnemar,
    mean_interval,
)


def test_the_draw_of_counts_is_the_bootstrap_of_images() -> None:
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=300, p=[0.1, 0.6, 0.3])
    found = mean_interval(values, (-1, 1))
    slow = bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert found == pytest.approx([slow.low, slow.high], abs=0.008)
    assert found == mean_interval(values, (-1, 1))  # seeded


def test_continuous_values_go_through_scipy() -> None:
    values = np.random.default_rng(1).normal(size=200)
    found = mean_interval(values, (-np.inf, np.inf))
    assert found is not None
    half = 1.96 * values.std() / np.sqrt(200)
    assert found == pytest.approx([values.mean() - half, values.mean() + half], abs=0.03)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = mean_interval(rng.random(100) < 0.7, (0, 1)) or (0, 0)
        hits += low <= 0.7 <= high
    assert 0.9 <= hits / 200 <= 0.99


def test_images_that_all_agree_still_have_an_interval() -> None:
    low, high = mean_interval([100.0] * 10, (0, 100)) or (0, 0)
    assert high == 100
    assert binom.pmf(10, 10, low / 100) == pytest.approx(
        0.025
    )  # so low an accuracy would still give 10 of 10 in 2.5 %
    low, high = mean_interval([0.0] * 1000, (-1, 1)) or (0, 0)
    assert -0.004 < low < 0 < high < 0.004
    assert mean_interval([1.0], (0, 1)) is None
    assert estimate([], (0, 1)) == {"value": None, "interval": None, "n": 0}


def test_mcnemar_is_exact() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(8, 1) == pytest.approx(2 * (1 + 9) / 2**9)


def test_calibration_error_of_a_hand_worked_case() -> None:
    confidence, right = np.array([0.95, 0.95, 0.55, 0.55, 1.0]), np.array([1, 0, 1, 1, 1.0])
    # bins: [14/15, 1] holds .95 .95 1.0 with accuracy 2/3, [8/15, 9/15) holds .55 .55 with accuracy
    # 1
    assert calibration_error(confidence, right) == pytest.approx((abs(2.9 - 2) + abs(1.1 - 2)) / 5)


def test_calibration_of_two_models_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 2000)
    good = (confidence, (rng.random(2000) < confidence).astype(float))
    bad = (confidence, (rng.random(2000) < confidence - 0.2).astype(float))
    ours, theirs, difference = calibration([good, bad])
    assert ours["value"] < 0.04
    assert theirs["interval"][0] < 0.2 < theirs["interval"][1]
    assert difference["value"] == pytest.approx(ours["value"] - theirs["value"])
    assert difference["interval"][1] < -0.1
    assert (
        ours["interval"][0] <= 0.01
    )  # the estimate is biased upwards; the interval reaches down to what is true
