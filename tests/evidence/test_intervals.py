from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm, t

from evidence.intervals import estimate, image_counts, lowest, per_draw, widening

FILES = "00ff"


def answers(draws: int, images: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((draws, images)) < 0.6).astype(np.float32)


def test_accuracies_are_those_of_a_loop_over_resampled_images() -> None:
    right, inside = answers(3, 11), answers(3, 11, seed=1).astype(bool)
    inside[:, 0] = True
    counts = image_counts(FILES, 11, resamples=50)
    found = per_draw(right, inside, counts)
    for resample, draw in itertools.product(range(51), range(3)):
        taken = np.repeat(np.arange(11), counts[resample].astype(int))
        assert len(taken) == 11
        kept = [right[draw, i] for i in taken if inside[draw, i]]
        expected = 100 * np.mean(kept) if kept else math.nan
        assert found[resample, draw] == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_the_interval_is_that_of_every_possible_resample() -> None:
    """3 images and 2 draws: all 27 x 4 resamples are equally likely, so the quantiles are known."""
    right = np.array([[1, 0, 1], [0, 0, 1]], dtype=np.float32)
    centre = right.mean(1)
    every = []
    for images in itertools.product(range(3), repeat=3):
        each = right[:, list(images)].mean(1)
        wide = each.mean() + widening(2) * (each - each.mean())
        every += [100 * wide[list(draws)].mean() for draws in itertools.product(range(2), repeat=2)]
    counts = image_counts(FILES, 3, resamples=40_000)
    values = per_draw(right, np.ones((2, 3), bool), counts)
    found = estimate(values)
    assert found.value == pytest.approx(100 * centre.mean(), abs=1e-4)
    expected = np.quantile(every, [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx(list(expected), abs=0.1)


def test_where_only_images_vary_the_interval_is_that_of_one_draw() -> None:
    right = np.repeat(answers(1, 200), 5, axis=0)
    counts = image_counts(FILES, 200)
    five = estimate(per_draw(right, np.ones_like(right), counts))
    one = estimate(per_draw(right[:1], np.ones_like(right[:1]), counts))
    assert (five.low, five.high) == pytest.approx((one.low, one.high), abs=0.1)
    half = 1.96 * 100 * right[0].std() / math.sqrt(200)
    assert (one.high - one.low) / 2 == pytest.approx(half, rel=0.06)


def test_where_only_draws_vary_the_interval_is_about_as_wide_as_students() -> None:
    rng, held, widths = np.random.default_rng(0), 0, []
    for _ in range(300):
        draws = rng.normal(0, 1, 5)
        found = estimate(np.repeat(draws[None], 2001, axis=0), seed=int(rng.integers(1 << 30)))
        held += found.low <= 0 <= found.high
        half = t.ppf(0.975, 4) * draws.std(ddof=1) / math.sqrt(5)
        widths.append((found.high - found.low) / 2 / half)
    assert 0.91 < held / 300 <= 0.99  # a plain bootstrap of five: 82 %
    assert np.mean(widths) == pytest.approx(1, abs=0.1)


def test_widening_is_students_and_none_for_one_draw() -> None:
    assert widening(1) == 1
    expected = t.ppf(0.975, 4) / norm.ppf(0.975) * math.sqrt(5 / 4)
    assert widening(5) == pytest.approx(expected)
    assert widening(2000) == pytest.approx(1, abs=1e-3)


def test_a_difference_is_paired_by_image_and_draw() -> None:
    before = answers(5, 300)
    after = before.copy()
    after[:, :30] = 1
    counts = image_counts(FILES, 300)
    inside = np.ones_like(before)
    difference = estimate(per_draw(after, inside, counts) - per_draw(before, inside, counts))
    alone = estimate(per_draw(after, inside, counts))
    assert difference.value == pytest.approx(100 * (after - before).mean(), abs=1e-3)
    assert difference.high - difference.low < (alone.high - alone.low) / 1.4
    nothing = estimate(per_draw(before, inside, counts) - per_draw(before, inside, counts))
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_test_sets_of_the_same_names_take_the_same_images_and_seeds_repeat() -> None:
    image_counts.cache_clear()
    one = image_counts(FILES, 40, resamples=20).copy()
    image_counts.cache_clear()
    assert (image_counts(FILES, 40, resamples=20) == one).all()
    assert not (image_counts("00fe", 40, resamples=20) == one).all()
    assert (one[0] == 1).all()
    assert (one.sum(1) == 40).all()


def test_the_lowest_is_taken_in_each_draw_and_resample() -> None:
    one, other = np.array([[1.0, 5.0], [2.0, 2.0]]), np.array([[3.0, 4.0], [1.0, np.nan]])
    assert lowest([one, other]).tolist() == [[1, 4], [1, 2]]


def test_no_image_gives_no_number() -> None:
    found = estimate(np.full((10, 2), np.nan))
    assert math.isnan(found.value)
