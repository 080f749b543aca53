"""Tests of paired answers and of calibration: hand-worked cases, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from refocus.evaluation import intervals as module
from refocus.evaluation.intervals import (
    calibration,
    calibration_error,
    estimate,
    sums_interval,
)
from refocus.intervals import mean_interval
from refocus.results import Change, Compared, Estimate


def test_nothing_has_no_estimate() -> None:
    assert estimate([], (0, 1)) == Estimate(None, None, 0)


def test_sums_of_many_images_are_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.random.default_rng(0).random((60, 2))
    shapes = []

    def ratio(sums: np.ndarray) -> np.ndarray:
        shapes.append(len(sums))
        return sums[:, 0] / sums[:, 1]

    worst = ((0, 1), (1, 0))
    whole = sums_interval(columns, ratio, worst, seed=1)
    monkeypatch.setattr(module, "_COUNTS", 60 * 7)
    shapes.clear()
    assert sums_interval(columns, ratio, worst, seed=1) == pytest.approx(whole, abs=1e-12)
    assert (max(shapes), sum(shapes)) == (7, 2000)


def test_sums_of_few_images_have_the_bounds_of_means() -> None:
    """Where the number is a mean, these are Gaffke's, of 10 images as of few that differ."""
    for n in (10, 100):
        values = np.r_[np.linspace(0.2, 0.9, 10), np.full(n - 10, 0.5)]
        columns = np.stack([np.ones(n), values], axis=1)
        found = sums_interval(
            columns, lambda sums: sums[:, 1] / sums[:, 0], ((1, 0), (1, 1)), telling=10
        )
        assert found == pytest.approx(mean_interval(values, (0, 1)), abs=0.012)


def test_calibration_error_of_a_hand_worked_case() -> None:
    confidence, right = np.array([0.95, 0.95, 0.55, 0.55, 1.0]), np.array([1, 0, 1, 1, 1.0])
    # two bins, as five images make no more; equals stay together: gaps -.45, -.45, -.05, .95 and 0;
    # pairs of different images
    lower, upper = -(2 * 0.45**2 + 0.05**2 + 0.95**2) / 3, 0.0
    assert calibration_error(confidence, right) == pytest.approx((upper + lower) / 5)


def test_images_of_equal_confidence_count_alike_in_any_order() -> None:
    # half are certain; listed by class, and the first of these classes are always right
    confidence = np.repeat([0.6, 1.0], 100)
    right = np.concatenate([np.tile([1, 1, 1, 0, 0], 20), np.repeat([1, 0], 50)]).astype(float)
    found = calibration_error(confidence, right)
    order = np.random.default_rng(0).permutation(200)
    assert calibration_error(confidence[order], right[order]) == pytest.approx(found)
    # certain and right half of the time: a gap of 1/2 on half of the images, the others have none
    assert found == pytest.approx(0.5**2 / 2, abs=0.005)


def test_calibration_of_two_models_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 2000)
    good = (confidence, (rng.random(2000) < confidence).astype(float))
    bad = (confidence, (rng.random(2000) < confidence - 0.2).astype(float))
    found = calibration([good, bad])
    model, against, change = found.model, found.against, found.change
    assert model.interval[0] == 0  # a calibrated model: the interval reaches down to the truth
    assert model.interval[1] < 0.004
    assert against.interval[0] < 0.2**2 < against.interval[1]
    assert change.difference == pytest.approx(model.value - against.value)
    assert change.interval[0] < -(0.2**2) < change.interval[1] < -0.02
    few = calibration([(confidence[:99], good[1][:99])])
    assert few.model.interval is None
    assert few.change is None
    nothing = (confidence[:0], good[1][:0])
    assert calibration([nothing]) == Compared(Estimate(None, None, 0))
    assert calibration([nothing, nothing]).change == Change(None, None, 0)


@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.08, 0.0), (0.08, 0.08), (0.15, 0.03)])
@pytest.mark.parametrize("n", [100, 400])
def test_calibration_intervals_cover_what_is_true(gaps: tuple[float, float], n: int) -> None:
    """And not much more: of calibrated models a bootstrap held 57 %, the first normal one 99.8 %.

    The truth is a gap that is the same everywhere, squared. benchmarks/harm.py --calibration has
    more settings and runs.
    """
    rng = np.random.default_rng(n)
    truths = [gap**2 for gap in gaps]
    hits, repeats = np.zeros(3), 300
    for _ in range(repeats):
        sure = np.clip(rng.normal(0.75, 0.12, (2, n)) * [[1], [0.9]] + 0.1, 0.3, 0.98)
        luck = rng.random(n)  # the same images: what one gets wrong the other mostly does as well
        answers = [(c, (luck < c - gap).astype(float)) for c, gap in zip(sure, gaps, strict=True)]
        found = calibration(answers)
        intervals = [part.interval for part in (found.model, found.against, found.change)]
        for i, truth in enumerate((*truths, truths[0] - truths[1])):
            hits[i] += intervals[i][0] - 1e-9 <= truth <= intervals[i][1]
    assert (hits / repeats >= 0.92).all(), hits / repeats
    assert (hits / repeats < 0.99).all(), hits / repeats


def test_a_model_against_itself_has_no_other_calibration() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.5, 1, 150)
    same = (confidence, (rng.random(150) < confidence).astype(float))
    change = calibration([same, same]).change
    assert change.difference == 0
    assert change.interval == pytest.approx((0, 0), abs=1e-6)
