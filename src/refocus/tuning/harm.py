"""Do no harm: which weights on the line from original to tuned to keep, with a known error rate.

Axes: answers to images as they are `[shares, n]`, and to pairs of swaps `[shares, p]`; one row for
each share of the tuned weights, the original first. Imports no torch; `checks` measures them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refocus.intervals import LEVEL, chance, flip_chance, images_needed, lower_bound, mean_interval
from refocus.results import Change, Compared, Estimate, Interval
from refocus.tuning.results import Candidate

# points on the line from the original weights (0) to the tuned ones (1)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FINER = tuple(i / 8 for i in range(9))
_MANY = 400  # check images from which finer shares keep more of a gain (docs/results.md)
ERROR = 1 - LEVEL  # chance with which each of the rule's two promises may be broken
_SIGNED = (-1.0, 1.0)  # bounds of one image's change


def shares_for(check_images: int) -> tuple[float, ...]:
    """Points on the line that so many images are to judge: the first has to pass before others."""
    return FINER if check_images >= _MANY else SHARES


# --- the rule -----------------------------------------------------------------------------------


def standing(plain: np.ndarray, swapped: np.ndarray, tolerance: float) -> np.ndarray:
    """Which shares pass both tests of the rule, bool `[shares]`; the first, the original, does not.

    plain: right as they are, `[shares, n]` in {0, 1}; swapped: share of a pair's swaps that are
    right, `[shares, p]` in [0, 1]; both by rising share. tolerance: in percentage points.

    (1) In-domain top-1 is lost by less than `tolerance`: a test of non-inferiority at 5 %, from the
    smallest share up, until one fails.
    (2) Top-1 with swapped backgrounds is gained: a test at 5 %, from the largest share down, until
    one fails.
    Tests in a fixed order need no correction (Maurer, Hothorn and Lehmacher, 1995): the chance to
    keep weights that break promise (1) is at most 5 % over all shares, and so is that of (2). The
    orders put first what passes most easily: a smaller share loses less, a larger one gains more.
    """
    count = len(plain)
    stands = np.zeros(count, dtype=bool)
    limit = -tolerance / 100
    safe = 0  # the last share that passes (1), all before it doing so as well
    while safe + 1 < count and chance(plain[safe + 1] - plain[0], _SIGNED, limit) < ERROR:
        safe += 1
    for at in range(count - 1, 0, -1):
        if (not safe) or chance(swapped[at] - swapped[0], _SIGNED) >= ERROR:
            break
        stands[at] = at <= safe
    return stands


def choose(stands: np.ndarray | Sequence[bool]) -> int:
    """Position of the largest share that stands; 0, the original, where none does."""
    return max((i for i, passes in enumerate(stands) if passes), default=0)


@dataclass(frozen=True)
class Shortage:
    """How many check images would decide about a share: `images` is None where no number would."""

    position: int
    images: int | None


def shortage(plain: np.ndarray, swapped: np.ndarray, tolerance: float) -> Shortage:
    """The share that is closest to standing and the images with which it would, 4 times out of 5.

    As if what was seen were the truth: its mean change and its variance. A share is judged after
    smaller ones that are safe and larger ones that gain, so their images count as well.
    """
    last = len(plain) - 1
    if not swapped.size:
        return Shortage(last, None)
    each = plain.shape[1] / swapped.shape[1]  # images for a pair
    safe, sure = dict[int, float](), dict[int, float]()  # images for rules (1) and (2)
    for at in range(1, last + 1):
        lost, gained = plain[at] - plain[0], swapped[at] - swapped[0]
        images = images_needed(float(lost.mean()), float(lost.var()), -tolerance / 100)
        pairs = images_needed(float(gained.mean()), float(gained.var()), 0.0)
        safe[at] = math.inf if images is None else images
        sure[at] = math.inf if pairs is None else math.ceil(each * pairs)
    best = min(safe, key=lambda at: max(safe[at], sure[at]))
    if math.isinf(max(safe[best], sure[best])):
        return Shortage(last, None)
    before, after = [safe[at] for at in safe if at <= best], [sure[at] for at in sure if at >= best]
    needed = max(*before, *after)
    return Shortage(best, None if math.isinf(needed) else int(needed))


def least_images(tolerance: float) -> int | None:
    """Check images below which rule (1) can pass only where tuning gains in-domain.

    With so many it passes where no answer changes; None where nothing may be lost.
    """
    return images_needed(0.0, 0.0, -tolerance / 100)


# --- its numbers --------------------------------------------------------------------------------


def candidates(
    shares: Sequence[float], plain: np.ndarray, swapped: np.ndarray, tolerance: float
) -> list[Candidate]:
    """The numbers of each share, in percent and points, from what `standing` is given."""
    stands = standing(plain, swapped, tolerance)
    found = []
    for at, share in enumerate(shares):
        lost, gained = plain[at] - plain[0], swapped[at] - swapped[0]
        bounds: dict[str, float] = {}
        if at:
            bounds["most_lost"] = -100 * lower_bound(lost, _SIGNED, ERROR)
            bounds["least_gained"] = 100 * lower_bound(gained, _SIGNED, ERROR)
        in_domain, on_swapped = _compared(plain, at), _compared(swapped, at)
        found.append(Candidate(share, in_domain, on_swapped, stands=bool(stands[at]), **bounds))
    return found


def _compared(answers: np.ndarray, at: int) -> Compared:
    if not answers.size:
        return Compared(Estimate(None, None, 0), Estimate(None, None, 0), None)
    model, against = (_estimate(answers[i]) for i in (at, 0))
    return Compared(model, against, compare(answers[at], answers[0]) if at else None)


def _estimate(right: np.ndarray) -> Estimate:
    return Estimate(100 * float(right.mean()), _interval(right, (0.0, 1.0)), len(right))


def compare(now: np.ndarray, before: np.ndarray) -> Change:
    """Change in points of what was right before, paired by image; both in [0, 1]."""
    change = now - before
    return Change(
        100 * float(change.mean()),
        _interval(change, _SIGNED),
        len(change),
        flip_chance(change),
        corrected=int((change > 0).sum()),
        broken=int((change < 0).sum()),
    )


def compare_right(now: np.ndarray, before: np.ndarray) -> Compared:
    """Top-1 in percent now and before on the same images."""
    return Compared(_estimate(now), _estimate(before), compare(now, before))


def _interval(values: np.ndarray, bounds: tuple[float, float]) -> Interval | None:
    found = mean_interval(100 * values, (100 * bounds[0], 100 * bounds[1]))
    return None if found is None else (found[0], found[1])
