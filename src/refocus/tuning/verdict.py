"""The do-no-harm rule's answer in one sentence, and what it says before a run.

One function makes the verdict that `refocus tune`, `refocus report` and the app show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from refocus.intervals import images_needed
from refocus.results import Compared
from refocus.tuning.harm import Shortage, least_images
from refocus.tuning.results import Candidate, Verdict

_OFTEN = 0.02  # of the answers that tuning breaks, and as many corrects, in what is said beforehand


def judge(
    found: Sequence[Candidate],
    chosen: int,
    tolerance: float,
    short: Shortage,
    unseen: Mapping[str, Compared],
) -> Verdict:
    """What improved, what it cost, how sure that is, what to do, and what would make it surer.

    Args:
        found: the points on the line, the original first.
        chosen: position of the one that the rule advises; 0 is the original.
        tolerance: points of in-domain top-1 that may be lost.
        short: where none is advised, the one that is closest to it and the images it would take.
        unseen: shifts that no objective trains on, of the one that is judged.
    """
    if chosen:
        return Verdict(True, found[chosen].share, _ship(found[chosen], unseen))
    sentence = _keep(found[short.position], tolerance, short.images)
    return Verdict(False, 0.0, sentence, short.images)


def _ship(kept: Candidate, unseen: Mapping[str, Compared]) -> str:
    assert kept.most_lost is not None
    assert kept.least_gained is not None
    cost = (
        f"it loses at most {kept.most_lost:.1f} points"
        if kept.most_lost > 0
        else f"it loses nothing (it gains at least {-kept.most_lost:.1f} points)"
    )
    return (
        f"Ship the tuned model ({kept.share:.0%} of the way): {_gain(kept)}, a gain of at least "
        f"{kept.least_gained:.1f} points, and on images as they are {cost}, each with 95 % "
        f"confidence on {kept.swapped.model.n} images that chose nothing{_elsewhere(unseen)}; test "
        "images from where it will be used would make it surer."
    )


def _keep(judged: Candidate, tolerance: float, needed: int | None) -> str:
    n = judged.swapped.model.n
    reasons = []
    if judged.least_gained is None or judged.least_gained <= 0:
        reasons.append("that gain may be chance" if _points(judged.swapped) > 0 else "no gain")
    if judged.most_lost is not None and judged.most_lost >= tolerance:
        reasons.append(
            f"on images as they are it may lose up to {judged.most_lost:.1f} points where "
            f"{tolerance:g} may be lost"
        )
    reason = " and ".join(reasons) or "a share before it does not hold"
    surer = (
        f"about {needed} check images in place of {n} would decide"
        if needed is not None and needed > n
        else "more check images would hardly change that"
    )
    return (
        f"Keep the original model: {_gain(judged)} at {judged.share:.0%} of the way, but {reason} "
        f"(95 % confidence, {n} check images); {surer}."
    )


def _gain(candidate: Candidate) -> str:
    assert candidate.swapped.against is not None
    return (
        "on backgrounds of other classes the tuned model answers "
        f"{candidate.swapped.model.value:.1f} % right instead of "
        f"{candidate.swapped.against.value:.1f} %"
    )


def _points(compared: Compared) -> float:
    return (compared.change.difference or 0.0) if compared.change else 0.0


def _elsewhere(unseen: Mapping[str, Compared]) -> str:
    """Whether shifts that no objective trains on agree."""
    if not unseen:
        return ""
    parts = ", ".join(f"{kind} {_points(found):+.1f}" for kind, found in unseen.items())
    decided = {found.change.decided for found in unseen.values() if found.change}
    word = "contradicted" if -1 in decided else "confirmed" if 1 in decided else "left open"
    return f", {word} by shifts that no objective trains on ({parts} points)"


def warning(check_images: int, tolerance: float) -> str:
    """What is said before a run whose check images are likely too few; empty where they are not."""
    needed = images_needed(0.0, 2 * _OFTEN, -tolerance / 100)
    least = least_images(tolerance)
    if needed is None or least is None:
        return (
            "with ‹tolerance› 0 the do-no-harm rule keeps tuned weights only where they are more "
            "accurate on images as they are"
        )
    if check_images >= needed:
        return ""
    return (
        f"{check_images} images are left to check for harm: with fewer than {least} the do-no-harm "
        f"rule keeps tuned weights only where they are more accurate on images as they are, and "
        f"about {needed} are needed where tuning changes 4 % of the answers and loses none on "
        f"balance (‹tolerance› {tolerance:g}); give more by ‹images›, or by ‹val› and ‹val_masks›"
    )
