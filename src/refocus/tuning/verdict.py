"""The do-no-harm rule's answer in words, and what it says before a run.

One function makes the verdict that `refocus tune`, `refocus report` and the app show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from refocus.intervals import images_needed
from refocus.results import Compared
from refocus.tuning.harm import Shortage, least_images
from refocus.tuning.results import Candidate, Verdict, mixture

_OFTEN = 0.02  # of the answers that tuning breaks, and as many corrects, in what is said beforehand


def judge(
    candidates: Sequence[Candidate],
    chosen: int,
    tolerance: float,
    short: Shortage,
    unseen: Mapping[str, Compared],
) -> Verdict:
    """What improved, what it cost, how sure that is, what to do, and what would make it surer.

    Args:
        candidates: the points on the line, the original first.
        chosen: position of the one that the rule advises; 0 is the original.
        tolerance: points of in-domain top-1 that may be lost.
        short: where none is advised, the one that is closest to it and the images it would take.
        unseen: shifts that no objective trains on, of the one that is judged.
    """
    if chosen:
        return Verdict(True, candidates[chosen].share, _ship(candidates[chosen], unseen))
    n = candidates[0].in_domain.model.n
    needed = short.images if short.images is not None and short.images > n else None
    sentence = _keep(candidates, short, tolerance)
    return Verdict(False, 0.0, sentence, needed)


def _ship(kept: Candidate, unseen: Mapping[str, Compared]) -> str:
    assert kept.most_lost is not None
    assert kept.least_gained is not None
    cost = (
        f"falls by at most {kept.most_lost:.1f} points"
        if kept.most_lost > 0
        else f"does not fall (it rises by at least {-kept.most_lost:.1f} points)"
    )
    n = kept.in_domain.model.n
    return (
        f"Ship the tuned model ({mixture(kept.share)}): {_gain(kept)}, by at least "
        f"{kept.least_gained:.1f} points, and accuracy on unchanged images {cost}. Each bound "
        f"holds with 95 % confidence, on {n} check images{_elsewhere(unseen)}. "
        "Test images from where the model will be used would make this more certain."
    )


def _keep(candidates: Sequence[Candidate], short: Shortage, tolerance: float) -> str:
    judged = candidates[short.position]
    n = judged.in_domain.model.n
    if not judged.swapped.model.n:
        return (
            "Keep the original model: the check images are of one class, so there is no background "
            "of another class on which a gain could be shown. Give images of at least two classes."
        )
    reasons = []
    if judged.least_gained is None or judged.least_gained <= 0:
        gains = _points(judged.swapped) > 0
        reasons.append("that gain may be chance" if gains else "that is no gain")
    if judged.most_lost is not None and judged.most_lost >= tolerance:
        reasons.append(
            f"accuracy on unchanged images may fall by up to {judged.most_lost:.1f} points, where "
            f"the tolerance is {tolerance:g}"
        )
    reason = " and ".join(reasons) or _blocked(candidates, short.position, tolerance)
    if short.images is None:
        surer = "More check images would hardly change that"
    elif short.images > n:
        surer = f"About {short.images} check images instead of {n} would decide"
    else:
        surer = "A few more check images would likely decide"
    return (
        f"Keep the original model: with {mixture(judged.share)}, {_gain(judged)}, but {reason} "
        f"(95 % confidence, {n} check images). {surer}."
    )


def _blocked(candidates: Sequence[Candidate], position: int, tolerance: float) -> str:
    """Why a share that passes both tests by itself was not reached: which other share failed."""
    reasons = []
    for below in candidates[1:position]:
        if below.most_lost is not None and below.most_lost >= tolerance:
            reasons.append(
                f"with {mixture(below.share)} accuracy on unchanged images may fall by up to "
                f"{below.most_lost:.1f} points (the tolerance is {tolerance:g}), and a share is "
                "kept only if all smaller ones are safe"
            )
            break
    for above in candidates[:position:-1]:
        if above.least_gained is not None and above.least_gained <= 0:
            gain = "the gain may be chance" if _points(above.swapped) > 0 else "there is no gain"
            reasons.append(
                f"with {mixture(above.share)} {gain}, and a share is kept only if all larger ones "
                "gain"
            )
            break
    return ", and ".join(reasons) or "it is at the very limit of what the rule allows"


def _gain(candidate: Candidate) -> str:
    assert candidate.swapped.against is not None
    before, after = candidate.swapped.against.value, candidate.swapped.model.value
    assert before is not None
    assert after is not None
    word = "rises" if after > before else "falls" if after < before else ""
    if not word:
        return f"accuracy on other-class backgrounds stays at {after:.1f} %"
    return f"accuracy on other-class backgrounds {word} from {before:.1f} % to {after:.1f} %"


def _points(compared: Compared) -> float:
    return (compared.change.difference or 0.0) if compared.change else 0.0


def _elsewhere(unseen: Mapping[str, Compared]) -> str:
    """Whether shifts that no objective trains on agree."""
    if not unseen:
        return ""
    parts = ", ".join(f"{kind} {_points(found):+.1f}" for kind, found in unseen.items())
    decided = {found.change.decided for found in unseen.values() if found.change}
    unsure = "neither confirm nor contradict"
    word = "contradict" if -1 in decided else "confirm" if 1 in decided else unsure
    return f". Shifts that no objective trains on {word} this ({parts} points)"


def warning(check_images: int, tolerance: float) -> str:
    """What is said before a run whose check images are likely too few; empty where they are not."""
    needed = images_needed(0.0, 2 * _OFTEN, -tolerance / 100)
    least = least_images(tolerance)
    if needed is None or least is None:
        return (
            "with ‹tolerance› 0 the do-no-harm rule keeps tuned weights only if they are more "
            "accurate on unchanged images"
        )
    if check_images >= needed:
        return ""
    return (
        f"{check_images} images are left to check for harm. With fewer than {least}, the "
        "do-no-harm rule keeps tuned weights only if they are more accurate on unchanged images. "
        f"If tuning changes 4 % of the answers and loses none on balance, it needs about {needed} "
        f"(‹tolerance› {tolerance:g}). Give more ‹images›; "
        "tuning also takes a folder of its own (`refocus tune --val DIR --val-masks DIR`)"
    )
