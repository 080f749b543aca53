"""How often the do-no-harm rule keeps weights that it should not, and misses such as it should.

    python benchmarks/harm.py [--quick] [--shares 4|8] [--calibration]

Simulates the answers of an original and a tuned model on n check images, as they are and with
swapped backgrounds, and lets the rule judge them: the first one (point estimate of the in-domain
loss, sign-flip test at 5 % for each share) beside today's, and today's with Holm's correction in
place of fixed orders. A keep is wrong where the true in-domain loss is above the tolerance of one
point (promise 1), or where the true accuracy on swapped backgrounds did not rise (promise 2). A
gain is missed where the original is kept though some share keeps both promises.

--calibration: how often the intervals of the squared calibration error hold the truth instead.
--shares: quarters or eighths of the way for all n; the rule takes quarters below 400 images.
The last line is the worst rate of wrong keeps over all settings. --quick takes some seconds of one
idle core, a whole table about a quarter of an hour.

Model: every image has a latent difficulty, one as it is and one with swapped backgrounds, to which
the background adds that another image lends; tuning turns them by an angle that grows along the
way, so that answers change both ways, and moves the thresholds so that the true accuracies are
those of the setting. As in `refocus.tuning.checks` each two images exchange their backgrounds, and
what the rule reads of swaps is the share of a pair that is right.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from scipy.stats import binom

from refocus.evaluation.intervals import calibration, calibration_error
from refocus.intervals import chance
from refocus.results import Interval
from refocus.tuning.harm import ERROR, FINER, SHARES, choose, shares_for, standing

_NORMAL = NormalDist()
_TOLERANCE = 1.0
_SIGNED = (-1.0, 1.0)
_BEFORE = (0.80, 0.50)  # accuracy of the original as they are and with swapped backgrounds
_ALIKE = 0.9  # correlation of an image's difficulty before and after the whole way
_IMAGE = 0.6  # usual part of a swap's difficulty that is the image's and not the background's
_SKEWED = 0.06  # of the images that were always right are always wrong at the end of the way


@dataclass(frozen=True)
class Setting:
    """True changes in points at the end of the way, and how they grow along it."""

    name: str
    in_domain: float
    swapped: float
    peak: bool = False  # swapped accuracy rises until half of the way and is back at the end
    skewed: bool = False  # swaps: a few images lose all, many gain a little, the mean is 0
    image: float = _IMAGE  # part of a swap's difficulty that is the image's

    def changes(self, share: float) -> tuple[float, float]:
        """True change of both accuracies at a share of the way, in points.

        As on the demo (docs/results.md): gains come early, losses late.
        """
        gains, losses = 2 * share - share**2, share**2
        in_domain, swapped = (
            v * (gains if v > 0 else losses) for v in (self.in_domain, self.swapped)
        )
        return in_domain, self.swapped * 4 * share * (1 - share) if self.peak else swapped


SETTINGS = (
    Setting("nothing changes", 0, 0),
    Setting("better in-domain alone", 5, 0),
    Setting("better in-domain alone, skewed", 5, 0, skewed=True),
    Setting("harmless", 0, 15),
    Setting("helpful", 5, 15),
    Setting("a little help", 2, 5),
    Setting("harmful by 2", -2, 15),
    Setting("harmful by 3", -3, 15),
    Setting("harmful by 5", -5, 15),
    Setting("worse on swaps", 5, -5),
    Setting("best half of the way", 2, 10, peak=True),
    Setting("better in-domain alone, backgrounds decide", 5, 0, image=0),
)


def simulated(
    setting: Setting, n: int, shares: tuple[float, ...], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Right answers as they are `[shares, n]`, and of pairs of swaps `[shares, n // 2]`."""
    plain, swapped = np.empty((len(shares), n)), np.empty((len(shares), n))
    before, drift = rng.standard_normal((2, 2, n))
    ground, ground_drift = rng.standard_normal((2, n))
    for at, share in enumerate(shares):
        turn = share * math.acos(_ALIKE)
        now = math.cos(turn) * before + math.sin(turn) * drift
        where = math.cos(turn) * ground + math.sin(turn) * ground_drift
        where = where[np.arange(n) ^ 1]  # what the other image of the pair lends
        hard = math.sqrt(setting.image) * now[1] + math.sqrt(1 - setting.image) * where
        goals = [b + c / 100 for b, c in zip(_BEFORE, setting.changes(share), strict=True)]
        plain[at] = now[0] < _NORMAL.inv_cdf(goals[0])
        swapped[at] = hard < _NORMAL.inv_cdf(goals[1])
    if setting.skewed:  # pairs that were right with both backgrounds, and with none
        lucky, luck = np.repeat(rng.random(n // 2) < 0.5, 2), rng.random(n)
        luck = np.where(lucky, np.repeat(luck[::2], 2), luck)  # the first lose both at once
        for at, share in enumerate(shares):
            swapped[at] = np.where(lucky, luck >= _SKEWED * share, luck < _SKEWED * share)
    return plain, swapped.reshape(len(shares), -1, 2).mean(2)


# --- rules ----------------------------------------------------------------------------------------


@cache
def heads(count: int) -> np.ndarray:
    """Chances of 0 to `count` heads."""
    return np.asarray(binom.pmf(np.arange(count + 1), count, 0.5))


def sign_flip(change: np.ndarray) -> float:
    """Exact one-sided sign-flip test of changes in halves, as the first rule had."""
    steps = np.rint(2 * change).astype(int)
    sizes, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    spread = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        each = np.zeros(size * count + 1)
        each[::size] = heads(int(count))
        spread = np.convolve(spread, each)
    return float(spread[(steps.sum() + sizes @ counts) // 2 :].sum()) if len(sizes) else 1.0


def first(plain: np.ndarray, swapped: np.ndarray) -> int:
    """The rule of versions up to 0.1; its lowest relevance loss is the largest share here."""
    stands = [
        100 * (now.mean() - plain[0].mean()) >= -_TOLERANCE - 1e-9
        and sign_flip(moved - swapped[0]) < ERROR
        for now, moved in zip(plain, swapped, strict=True)
    ]
    return choose([False, *stands[1:]])


def today(plain: np.ndarray, swapped: np.ndarray) -> int:
    return choose(standing(plain, swapped, _TOLERANCE))


def holm(plain: np.ndarray, swapped: np.ndarray) -> int:
    """Both tests with Holm's correction over the shares, in place of fixed orders."""
    passes = []
    for answers, limit in ((plain, -_TOLERANCE / 100), (swapped, 0.0)):
        found = np.array([chance(now - answers[0], _SIGNED, limit) for now in answers[1:]])
        order, alive = np.argsort(found), True
        ok = np.zeros(len(found), dtype=bool)
        for rank, at in enumerate(order):
            alive = alive and found[at] < ERROR / (len(found) - rank)
            ok[at] = alive
        passes.append(ok)
    return choose([False, *(passes[0] & passes[1])])


RULES: dict[str, Callable[[np.ndarray, np.ndarray], int]] = {
    "first": first,
    "today": today,
    "Holm": holm,
}


@dataclass
class Rates:
    """Of all runs of a setting, in percent; `missed` is None where no share keeps both promises."""

    gained: float = 0  # points of true swapped accuracy that are kept, on average
    lost_more: float = 0
    no_gain: float = 0
    missed: float | None = 0


def rates(
    setting: Setting, n: int, shares: tuple[float, ...], runs: int, names: list[str]
) -> dict[str, Rates]:
    rng = np.random.default_rng([n, SETTINGS.index(setting)])
    truth = [setting.changes(share) for share in shares]
    good = [lost > -_TOLERANCE and gained > 0 for lost, gained in truth]
    found = {name: Rates(missed=0 if any(good) else None) for name in names}
    for _ in range(runs):
        answers = simulated(setting, n, shares, rng)
        for name in names:
            kept, rate = RULES[name](*answers), found[name]
            rate.gained += truth[kept][1] / runs
            rate.lost_more += 100 / runs * (truth[kept][0] < -_TOLERANCE)
            rate.no_gain += 100 / runs * (kept > 0 and truth[kept][1] <= 0)
            if rate.missed is not None:
                rate.missed += 100 / runs * (kept == 0)
    return found


def harm(args: argparse.Namespace) -> None:
    names = ["first", "today"] if args.quick else list(RULES)
    columns = " | ".join(f"{name}: lost more, no gain, missed, gained" for name in names)
    print(f"| setting | n | {columns} |\n|{'---|' * (2 + len(names))}", flush=True)
    worst = 0.0
    for setting in SETTINGS:
        for n in args.images:
            shares = {4: SHARES, 8: FINER, None: shares_for(n)}[args.shares]
            found = rates(setting, n, shares, args.runs, names)
            cells = [
                f"{r.lost_more:.1f}, {r.no_gain:.1f}, "
                + ("-" if r.missed is None else f"{r.missed:.0f}")
                + f", {r.gained:.1f}"
                for r in found.values()
            ]
            print(f"| {setting.name} | {n} | {' | '.join(cells)} |", flush=True)
            worst = max(worst, found["today"].lost_more, found["today"].no_gain)
    print(f"worst rate of wrong keeps of today's rule, either promise: {worst:.1f} %")


# --- calibration ----------------------------------------------------------------------------------

GAPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "calibrated": lambda sure: sure,
    "sure by 3 points too much": lambda sure: sure - 0.03,
    "sure by 8 points too much": lambda sure: sure - 0.08,
    "the more, the surer": lambda sure: sure - 0.2 * (sure - 0.1),
    "too modest": lambda sure: sure + 0.5 * (1 - sure) * sure,
    "now too much, now too little": lambda sure: sure + 0.1 * np.sin(6 * sure),
}
_PAIRS = (
    ("calibrated", "calibrated"),
    ("sure by 8 points too much", "calibrated"),
    ("sure by 8 points too much", "sure by 8 points too much"),
    ("the more, the surer", "sure by 3 points too much"),
    ("too modest", "calibrated"),
    ("now too much, now too little", "too modest"),
)


def answered(
    pair: tuple[str, str], n: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Confidence and right answers of two models on the same images."""
    logit = rng.normal(1.2, 1.5, n)
    luck = rng.random(n)
    found = []
    for number, name in enumerate(pair):
        sure = 0.1 + 0.9 / (1 + np.exp(-logit - number * rng.normal(0.3, 0.5, n)))
        own = np.where(rng.random(n) < 0.15 * number, rng.random(n), luck)
        found.append((sure, (own < np.clip(GAPS[name](sure), 0, 1)).astype(float)))
    return found


def intervals(answers: list[tuple[np.ndarray, np.ndarray]]) -> list[Interval]:
    """Of both errors and of their difference."""
    found = calibration(answers)
    every = (found.model, found.against, found.change)
    return [part.interval for part in every if part is not None and part.interval is not None]


def covers(args: argparse.Namespace) -> None:
    print("| first, second | n | first | second | difference |\n|---|---|---|---|---|")
    every = []
    for pair in _PAIRS:
        long = answered(pair, 2_000_000, np.random.default_rng(9))
        truths = [max(0.0, calibration_error(*answer)) for answer in long]
        truths.append(truths[0] - truths[1])
        for n in args.images:
            rng, hits = np.random.default_rng(n), np.zeros(3)
            for _ in range(args.runs):
                rows = intervals(answered(pair, n, rng))
                hits += [low <= t <= high for (low, high), t in zip(rows, truths, strict=True)]
            cells = [f"{100 * hit / args.runs:.1f}" for hit in hits]
            every += [100 * hit / args.runs for hit in hits]
            print(f"| {', '.join(pair)} | {n} | {' | '.join(cells)} |", flush=True)
    print(f"coverage: {min(every):.1f} to {max(every):.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two sizes, few runs")
    parser.add_argument("--shares", choices=(4, 8), type=int, help="parts of the way, for all n")
    parser.add_argument("--calibration", action="store_true", help="coverage of its intervals")
    parser.add_argument("--runs", type=int, help="simulated runs of each setting")
    parser.add_argument("--images", type=int, nargs="+", help="numbers of check images")
    args = parser.parse_args()
    few = [126, 400] if not args.calibration else [100, 400]
    many = [50, 126, 200, 400, 1000] if not args.calibration else [100, 200, 500, 1000]
    args.images = args.images or (few if args.quick else many)
    usual = 4000 if args.calibration else 2000
    args.runs = args.runs or (300 if args.quick else usual)
    (covers if args.calibration else harm)(args)


if __name__ == "__main__":
    main()
