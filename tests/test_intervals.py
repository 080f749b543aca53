"""Bounds and intervals of means: against exact tests, other methods' numbers and by simulation."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest
from scipy.stats import beta, binom, bootstrap, multinomial

from refocus import intervals
from refocus.intervals import (
    chance,
    crossed_interval,
    flip_chance,
    images_needed,
    lower_bound,
    mcnemar,
    mean_interval,
    swap_chance,
    upper_bound,
)


def test_mcnemar_is_exact() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(8, 1) == pytest.approx(2 * (1 + 9) / 2**9)


@pytest.mark.parametrize("split", [(4, 0), (6, 0), (9, 2), (30, 12)])
def test_flips_of_changes_of_one_size_are_mcnemars_test(split: tuple[int, int]) -> None:
    changes = np.repeat([100.0, -100.0, 0.0], [*split, 150])
    assert flip_chance(changes) == mcnemar(*split)
    unequal = changes * np.linspace(1, 1 + 1e-6, len(changes))  # the same but for ties
    assert flip_chance(unequal) == pytest.approx(mcnemar(*split), abs=0.002 + 0.1 / len(changes))


def test_flips_are_counted_and_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = np.array([3.0, 1, -1, 2, 2, 0.5, -0.5, 1, 4, -2, 0, 0])
    signs = np.array(list(product([1, -1], repeat=10)))
    slow = (np.abs(signs @ changes[:10]) >= 10).mean()
    assert flip_chance(changes) == pytest.approx(slow)
    monkeypatch.setattr(intervals, "_COMPLETE", 5)
    assert flip_chance(changes) == pytest.approx(slow, abs=0.01)
    assert flip_chance([]) == flip_chance([0.0, 0.0]) == 1


def test_a_ratio_of_two_models_alike_is_rarely_called_different() -> None:
    rng, low = np.random.default_rng(0), 0
    for _ in range(200):
        of_both = rng.random((2, 12, 2)) < [0.5, 0.8]
        ours, theirs = np.minimum(of_both[..., :1], of_both).astype(float)
        p = swap_chance(ours, theirs, lambda sums: sums[:, 0] / sums[:, 1])
        low += p < 0.05
    assert low / 200 <= 0.08  # 0.05 and two standard errors


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


def test_many_values_are_resampled_in_parts_that_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(1).normal(size=200)
    whole = mean_interval(values, (-np.inf, np.inf))
    monkeypatch.setattr(intervals, "_DRAWS", 700)
    tracemalloc.start()
    assert mean_interval(values, (-np.inf, np.inf)) == whole
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20  # 500 resamples at a time have 1.6 MB


def test_equal_counts_are_resampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand classes most have the same counts."""
    made: list[int] = []
    genuine = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: made.append(seed) or genuine(seed))
    values = np.repeat([0.0, 50.0, 100.0], [17, 24, 19])
    found = {mean_interval(some, (0, 100), 12345) for some in (values, values[::-1], values)}
    assert len(found) == 1
    assert made == [12345]
    mean_interval(values, (0, 100), 12346)
    assert made == [12345, 12346]


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


@pytest.mark.parametrize("n", [30, 100, 1000])
def test_answers_right_or_wrong_have_the_exact_interval_at_every_n(n: int) -> None:
    """Clopper and Pearson's; a bootstrap of 30 holds as little as 85 % of the truths."""
    wrong = np.unique(np.r_[0, 1, 2, 3, n // 3, n - 1, n])
    found = [mean_interval(np.repeat([0.0, 100.0], [k, n - k]), (0, 100)) for k in wrong]
    exact = [
        (100 * beta.ppf(0.025, n - k, k + 1) if k < n else 0, 100 * beta.ppf(0.975, n - k + 1, k))
        for k in wrong[1:]
    ]
    assert np.array(found[1:]) == pytest.approx(np.array(exact), abs=1e-5)
    lows = [low for low, _ in found]
    assert lows == sorted(lows, reverse=True)  # a further error never makes it surer


def test_right_or_wrong_of_30_to_100_images_is_covered() -> None:
    """By enumeration of all samples."""
    for n in (30, 50, 100):
        each = [mean_interval([0.0] * k + [1.0] * (n - k), (0, 1)) for k in range(n + 1)]
        low, high = np.array(each).T
        for truth in np.linspace(0.5, 0.999, 60):
            held = (low <= truth) & (truth <= high)
            assert binom.pmf(np.arange(n + 1), n, 1 - truth)[held].sum() >= 0.95


@pytest.mark.parametrize(
    ("n", "corrected", "broken"),
    [(30, 0.03, 0.02), (30, 0.05, 0.02), (50, 0.03, 0.02), (100, 0.01, 0.005), (100, 0.02, 0.01)],
)
def test_few_changed_images_are_covered(n: int, corrected: float, broken: float) -> None:
    """By enumeration of all samples with up to 9 changes; a bootstrap holds 81 to 91 %."""
    held = 0.0
    for more, less in product(range(10), repeat=2):
        if more + less < 10:
            values = np.repeat([1.0, -1.0, 0.0], [more, less, n - more - less])
            low, high = mean_interval(values, (-1, 1)) or (0, 0)
            shares = [corrected, broken, 1 - corrected - broken]
            likely = multinomial.pmf([more, less, n - more - less], n, shares)
            held += likely * (low <= corrected - broken <= high)
    assert held >= 0.95


def test_an_image_that_changes_never_makes_the_interval_surer() -> None:
    values = np.zeros(100)
    last = mean_interval(values, (-2, 2)) or (0, 0)
    for i, change in enumerate(np.resize([-1.0, -2.0, -0.5], 29)):
        values[i] = change
        found = mean_interval(values, (-2, 2)) or (0, 0)
        assert found[0] < last[0]
        last = found


def _paired(rng: np.random.Generator, n: int, corrected: float, broken: float) -> np.ndarray:
    return rng.choice([1.0, -1.0, 0.0], size=n, p=[corrected, broken, 1 - corrected - broken])


@pytest.mark.parametrize(("n", "right"), [(20, 3), (100, 0), (300, 297), (1000, 700)])
def test_for_two_kinds_of_values_the_bound_is_the_exact_one(n: int, right: int) -> None:
    values = [1.0] * right + [0.0] * (n - right)
    exact = beta.ppf(0.05, right, n - right + 1) if right else 0.0  # Clopper and Pearson
    assert lower_bound(values, (0, 1)) == pytest.approx(exact, abs=1e-6)
    exact = beta.ppf(0.95, right + 1, n - right)
    assert upper_bound(values, (0, 1)) == pytest.approx(exact, abs=1e-6)
    assert chance(values, (0, 1), 0.4) == pytest.approx(binom.sf(right - 1, n, 0.4), abs=1e-6)


@pytest.mark.parametrize("n", [1000, 100_000, 1_000_000])
@pytest.mark.parametrize(
    ("corrected", "broken"), [(1, 0), (1, 2), (60, 50), (2e-3, 2e-3), (0.3, 0.02), (0.02, 0.3)]
)
def test_the_bound_is_right_for_many_images(n: int, corrected: float, broken: float) -> None:
    gained, lost = (round(x * n) if x < 1 else int(x) for x in (corrected, broken))
    values = np.repeat([1.0, -1.0, 0.0], [gained, lost, n - gained - lost])
    exact = binom.sf(gained - 1, gained + lost, 0.5)  # of these, who won how often: the sign test
    assert chance(values, (-1, 1)) == pytest.approx(exact, abs=2e-6)
    normal = values.mean() - 1.645 * values.std() / np.sqrt(n)
    room = 0.4 * values.std() / np.sqrt(n) + 3 / n
    assert lower_bound(values, (-1, 1)) == pytest.approx(normal, abs=room)
    assert chance(values, (-1, 1), -0.9) < 1e-9
    assert chance(values, (-1, 1), 0.9) > 1 - 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_the_chance_is_that_of_randomly_weighted_means(seed: int) -> None:
    """The literal definition: weights uniform on the simplex, the worst value once more."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-4, 5 + seed % 4, size=int(rng.integers(3, 60))) / 8
    weights = rng.dirichlet(np.ones(len(values) + 1), size=100_000)
    slow = float((weights @ np.append(values, -1.0) <= 0.02).mean())
    assert chance(values, (-1, 1), 0.02) == pytest.approx(slow, abs=0.006)


def test_a_sure_gain_and_a_sure_loss_are_not_confused() -> None:
    for n in (30, 400, 5000):
        assert chance([1.0] * n, (-1, 1)) < 1e-6
        assert chance([-1.0] * n, (-1, 1)) == 1
        assert chance([0.0] * n, (-1, 1)) == 1
        assert chance([0.25] * (n // 2) + [0.0] * n, (-1, 1)) < 0.05


@pytest.mark.parametrize("n", [30, 100, 400])
@pytest.mark.parametrize(
    ("corrected", "broken"), [(0.0, 0.01), (0.02, 0.03), (0.1, 0.11), (0.3, 0.31)]
)
def test_a_loss_at_the_limit_is_overlooked_in_five_per_cent(
    n: int, corrected: float, broken: float
) -> None:
    """Non-inferiority at one point where the true loss is one: the error rate of rule 1."""
    rng = np.random.default_rng(0)
    wrong = [chance(_paired(rng, n, corrected, broken), (-1, 1), -0.01) < 0.05 for _ in range(800)]
    assert np.mean(wrong) <= 0.065  # 0.05 and two standard errors of the simulation


def test_a_few_large_losses_against_many_small_gains_do_not_pass_for_a_gain() -> None:
    """Mean 0, skewed: where a test that flips signs errs in 15 % (n = 50)."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(800):
        lost = rng.random(50) < 0.04
        values = np.where(lost, -1.0, rng.binomial(8, 0.04 / 0.96, size=50) / 8)
        wrong += chance(values, (-1, 1)) < 0.05
    assert wrong / 800 <= 0.05


@pytest.mark.parametrize("n", [10, 20, 29])
@pytest.mark.parametrize(("corrected", "broken"), [(0.1, 0.02), (0.3, 0.1), (0.05, 0.05)])
def test_small_samples_cover(n: int, corrected: float, broken: float) -> None:
    rng = np.random.default_rng(n)
    truth, hits = corrected - broken, 0
    for _ in range(300):
        low, high = mean_interval(_paired(rng, n, corrected, broken), (-1, 1)) or (0, 0)
        hits += low <= truth <= high
    assert hits / 300 >= 0.95


def test_small_samples_without_bounds_have_students_interval() -> None:
    low, high = mean_interval([1.0, 2.0, 3.0], (-np.inf, np.inf)) or (0, 0)
    assert (low, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)


def test_images_needed_are_enough_in_four_of_five() -> None:
    broken, limit = 0.03, -0.02
    n = images_needed(0.0, 2 * broken, limit)
    assert n is not None
    rng = np.random.default_rng(3)
    enough = [lower_bound(_paired(rng, n, broken, broken), (-1, 1)) > limit for _ in range(200)]
    assert 0.7 <= np.mean(enough) <= 0.9
    assert images_needed(0.0, 0.0, -0.01) == 299  # 0.99^299 < 0.05: no change at all is enough then
    assert images_needed(-0.02, 0.1, -0.01) is None


@pytest.mark.slow
def test_the_interval_over_draws_and_images_holds_its_promise() -> None:
    """Three draws whose true means differ: 95 % of such intervals must hold the true mean.

    The interval over images alone does not, which is why there is this one.
    """
    rng = np.random.default_rng(0)
    held = alone = 0
    for _ in range(200):
        likely = 0.6 + 0.08 * rng.standard_normal((3, 1)) + 0.1 * rng.standard_normal((1, 60))
        values = 100.0 * (rng.random((3, 60)) < likely)
        low, high = crossed_interval(values, (0, 100)) or (0, 0)
        held += low <= 60 <= high
        low, high = mean_interval(values.mean(0), (0, 100)) or (0, 0)
        alone += low <= 60 <= high
    assert held >= 184  # 3 standard errors below 190
    assert alone < 180


def test_draws_that_agree_say_as_much_as_one() -> None:
    values = np.tile([0.0, 100.0, 100.0, 100.0], (3, 10))
    assert crossed_interval(values, (0, 100)) == pytest.approx(
        mean_interval(values[0], (0, 100)), abs=2
    )
    assert crossed_interval(values[:1], (0, 100)) is None
