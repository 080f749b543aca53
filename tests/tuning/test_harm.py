"""Do no harm: the rule by hand, by simulation, and what is said of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from refocus.intervals import chance, images_needed, mcnemar
from refocus.results import Change, Compared, Estimate
from refocus.tuning import harm
from refocus.tuning.harm import candidates, choose, shortage, standing
from refocus.tuning.results import mixture
from refocus.tuning.verdict import judge, warning

N = 400
# in-domain and swapped answers (corrected, broken) at the shares 0.5 and 1 -> position kept, with a
# tolerance of 1 point
CASES = {
    "all better: the largest share": ([(12, 0), (12, 0)], [(20, 2), (30, 4)], 2),
    "too much may be lost at the end": ([(12, 0), (4, 4)], [(20, 2), (30, 4)], 1),
    "half of the way is not sure, so the end is not looked at": (
        [(4, 4), (12, 0)],
        [(20, 2), (30, 4)],
        0,
    ),
    "no change in-domain, of enough images": ([(0, 0), (0, 0)], [(20, 2), (30, 4)], 2),
    "swapped backgrounds within chance at the end": ([(12, 0), (12, 0)], [(20, 2), (6, 4)], 0),
    "swapped backgrounds within chance before the end": (
        [(12, 0), (12, 0)],
        [(3, 2), (30, 4)],
        2,
    ),
    "worse on swapped backgrounds": ([(12, 0), (12, 0)], [(1, 5), (1, 9)], 0),
    "nothing changed": ([(0, 0), (0, 0)], [(0, 0), (0, 0)], 0),
}


def answered(moves: list[tuple[int, int]], n: int = N) -> np.ndarray:
    """Answers `[shares, n]` of which the first row is half right."""
    rows = [np.arange(n) < n / 2]
    for corrected, broken in moves:
        row = rows[0].copy()
        row[:broken], row[n - corrected :] = False, True
        rows.append(row)
    return np.stack(rows).astype(float)


@pytest.mark.parametrize("case", CASES)
def test_the_rule(case: str) -> None:
    plain, swapped, expected = CASES[case]
    found = candidates((0.0, 0.5, 1.0), answered(plain), answered(swapped), 1.0)
    assert choose([c.stands for c in found]) == expected
    stands = standing(answered(plain), answered(swapped), 1.0)
    assert [c.stands for c in found] == stands.tolist()


def test_a_share_stands_where_both_bounds_say_so() -> None:
    plain, swapped = answered([(2, 1), (8, 9)]), answered([(20, 2), (30, 4)])
    original, half, whole = candidates((0.0, 0.5, 1.0), plain, swapped, 1.5)
    assert original.most_lost is original.least_gained is original.in_domain.change is None
    for at, candidate in ((1, half), (2, whole)):
        assert candidate.most_lost is not None
        limit = -candidate.most_lost / 100
        assert chance(plain[at] - plain[0], (-1, 1), limit) == pytest.approx(0.05, abs=1e-6)
        assert candidate.stands == (candidate.most_lost < 1.5)
    assert whole.swapped.change == Change(
        pytest.approx(6.5), whole.swapped.change.interval, N, mcnemar(30, 4), 30, 4
    )
    assert whole.in_domain.model.value == pytest.approx(50 - 0.25)


def test_many_images_judge_finer_shares() -> None:
    assert harm.shares_for(399) == harm.SHARES
    assert harm.shares_for(400) == tuple(i / 8 for i in range(9))


def test_the_tolerance_is_what_may_be_lost() -> None:
    plain, swapped = answered([(0, 4)]), answered([(30, 4)])
    kept = [choose(standing(plain, swapped, t)) for t in (0.0, 1.0, 2.0, 3.0)]
    assert kept == [0, 0, 0, 1]  # 1 point is lost, 2.3 at most


# --- error rates ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "harm.py"
    spec = importlib.util.spec_from_file_location("simulated_harm", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("n", [50, 126, 400])
def test_wrong_keeps_are_at_most_five_per_cent(simulation: ModuleType, n: int) -> None:
    """Both promises, in every setting: seeded, 200 runs each, 2 standard errors allowed."""
    for setting in simulation.SETTINGS:
        found = simulation.rates(setting, n, harm.SHARES, 200, ["today"])["today"]
        assert found.lost_more <= 5 + 3, setting.name
        assert found.no_gain <= 5 + 3, setting.name


def test_the_first_rule_erred_more_often(simulation: ModuleType) -> None:
    """The simulation can see what is wrong: in half of the cases more was lost than allowed."""
    (harmful,) = (s for s in simulation.SETTINGS if s.name == "harmful by 2")
    found = simulation.rates(harmful, 126, harm.SHARES, 100, ["first", "today"])
    assert found["first"].lost_more > 30
    assert found["today"].lost_more < 5


def test_a_clear_gain_is_kept(simulation: ModuleType) -> None:
    (helpful,) = (s for s in simulation.SETTINGS if s.name == "helpful")
    assert simulation.rates(helpful, 400, harm.SHARES, 100, ["today"])["today"].missed < 10


def test_the_images_that_a_gain_needs_are_two_for_a_pair() -> None:
    plain, swapped = answered([(40, 0)], 400), answered([(9, 3)], 200)
    gain = swapped[1] - swapped[0]
    pairs = images_needed(float(gain.mean()), float(gain.var()), 0.0)
    assert pairs is not None
    assert shortage(plain, swapped, 1.0) == harm.Shortage(1, 2 * pairs)
    assert 2 * pairs > 400  # so it is the gain that is waited for


# --- words ----------------------------------------------------------------------------------------


def verdict_of(
    plain: list[tuple[int, int]], swapped: list[tuple[int, int]], tolerance: float = 1.0
) -> tuple[bool, str, int | None]:
    a, b = answered(plain), answered(swapped)
    found = candidates((0.0, 0.5, 1.0), a, b, tolerance)
    gain = Compared(Estimate(60, None, N), Estimate(55, None, N), Change(5.0, (2.0, 8.0), N))
    chosen = choose([c.stands for c in found])
    verdict = judge(found, chosen, tolerance, shortage(a, b, tolerance), {"plain": gain})
    assert verdict.sentence.endswith(".")
    assert "\n" not in verdict.sentence
    assert verdict.share == found[chosen].share
    return verdict.ship, verdict.sentence, verdict.needed


def test_the_verdict_of_a_gain() -> None:
    ship, sentence, needed = verdict_of([(12, 0), (12, 0)], [(20, 2), (30, 4)])
    assert ship
    assert needed is None
    assert sentence.startswith("Ship the tuned model (the tuned weights): accuracy on other-class")
    for part in (
        "rises from 50.0 % to 56.5 %",
        "95 %",
        "on 400 check images",
        "Shifts that no objective trains on confirm this",
        "plain +5.0",
        "more certain",
    ):
        assert part in sentence
    assert "does not fall (it rises by at least" in sentence


def test_the_verdict_says_how_many_images_would_decide() -> None:
    ship, sentence, needed = verdict_of([(4, 4), (8, 9)], [(20, 2), (30, 4)])
    assert not ship
    assert needed is not None
    assert needed > N
    assert sentence.startswith("Keep the original model: ")
    assert f"About {needed} check images instead of 400 would decide" in sentence
    assert "may fall by up to" in sentence


def test_the_verdict_says_where_more_images_would_not_help() -> None:
    ship, sentence, needed = verdict_of([(0, 12), (0, 30)], [(1, 5), (1, 9)])
    assert not ship
    assert needed is None
    assert "but that is no gain" in sentence
    assert "More check images would hardly change that" in sentence


BLOCKED = {  # corrected and broken in-domain, and swapped, at the shares 0.5 and 1
    "a larger share gains nothing": (
        ([(0, 0), (0, 0)], [(40, 0), (0, 0)]),
        "weights averaged 50/50 with the original, accuracy on other-class backgrounds rises from "
        "50.0 % to 60.0 %, but with the tuned weights there is no gain, and a share is kept only "
        "if all larger ones gain (95 % confidence, 400 check images). More check images would "
        "hardly change that.",
        False,
    ),
    "the gain of a larger share may be chance": (
        ([(0, 0), (0, 0)], [(40, 0), (6, 4)]),
        "but with the tuned weights the gain may be chance, and a share is kept only if",
        True,
    ),
    "a smaller share is not safe": (
        ([(2, 5), (80, 0)], [(40, 0), (60, 0)]),
        "with the tuned weights, accuracy on other-class backgrounds rises from 50.0 % to 65.0 %, "
        "but with weights averaged 50/50 with the original accuracy on unchanged images may fall",
        True,
    ),
}


@pytest.mark.parametrize("case", BLOCKED)
def test_the_verdict_says_which_share_was_in_the_way(case: str) -> None:
    answers, said, decidable = BLOCKED[case]
    ship, sentence, needed = verdict_of(*answers)
    assert not ship
    assert said in sentence
    assert (needed is not None and needed > N) == decidable
    assert (f"About {needed} check images" in sentence) == decidable


def test_a_number_of_images_is_said_only_where_there_are_fewer() -> None:
    a, b = answered([(0, 0), (0, 0)]), answered([(0, 0), (0, 0)])
    found = judge(candidates((0.0, 0.5, 1.0), a, b, 1.0), 0, 1.0, harm.Shortage(2, N), {})
    assert found.needed is None
    assert "A few more check images would likely decide." in found.sentence


def test_a_split_that_chance_makes_often_confirms_nothing() -> None:
    before = np.zeros(100)
    after = before.copy()
    after[:4] = 1  # of 4 changes all are gains in 1 of 8 such samples, were both as likely
    found = {"blurred": harm.compare_right(after, before)}
    a, b = answered([(12, 0), (12, 0)]), answered([(20, 2), (30, 4)])
    every = candidates((0.0, 0.5, 1.0), a, b, 1.0)
    said = judge(every, 2, 1.0, shortage(a, b, 1.0), found).sentence
    assert "neither confirm nor contradict this (blurred +4.0 points)" in said


def test_what_is_said_before_a_run() -> None:
    assert warning(3000, 1.0) == ""
    said = warning(100, 1.0)
    assert "100 images are left to check for harm" in said
    assert "299" in said
    assert "2474" in said
    assert "more accurate" in warning(100, 0.0)


def test_a_share_is_said_in_words() -> None:
    assert mixture(0.5) == "weights averaged 50/50 with the original"
    assert mixture(0.125) == "weights averaged 12.5/87.5 with the original"
    assert (mixture(0.0), mixture(1.0)) == ("the original weights", "the tuned weights")
