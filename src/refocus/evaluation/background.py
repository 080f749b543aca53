"""How much a model relies on the background, by swapping it: BG-gap and change of confidence."""

from __future__ import annotations

from dataclasses import dataclass

from refocus.evaluation.intervals import estimate, mean_change
from refocus.evaluation.metrics import paired_difference, top1
from refocus.records import Prediction
from refocus.results import Background, Estimate, Reliance, RelianceChange

Predictions = dict[str, list[Prediction]]  # "model", and perhaps "against" -> its answers


def background_reliance(
    plain: Predictions, same: Predictions, rand: Predictions, seed: int
) -> Background:
    """The reliance of each model, and the change between them, over the same images.

    The confidence change is the softmax share of the true class on mixed-rand minus that on
    mixed-same, so that what pasting does by itself cancels.

    Args:
        plain: answers on the images as they are.
        same: answers on the shift mixed-same (Xiao et al., ICLR 2021).
        rand: answers on the shift mixed-rand.
        seed: of the intervals.
    """
    swapped = {which: _swapped(plain[which], same[which], rand[which]) for which in plain}
    model = _reliance(swapped["model"], seed)
    if "against" not in swapped:
        return Background(model)
    ours, theirs = ({s.image: s for s in swapped[which]} for which in ("model", "against"))
    pairs = [(ours[image], theirs[image]) for image in ours if image in theirs]
    change = RelianceChange(
        mean_change([a.lost - b.lost for a, b in pairs], (-200.0, 200.0), seed),
        mean_change([a.change - b.change for a, b in pairs], (-2.0, 2.0), seed),
    )
    return Background(model, _reliance(swapped["against"], seed), change)


@dataclass(frozen=True)
class _Swapped:
    """One model's answers on one image: as it is, and on the backgrounds of other images."""

    plain: Prediction
    same: Prediction
    rand: Prediction

    @property
    def image(self) -> str:
        return self.plain.image

    @property
    def lost(self) -> float:
        """100 where the answer is right on the same class's background alone, -100 reversed."""
        return 100.0 * self.same.right - 100.0 * self.rand.right

    @property
    def change(self) -> float:
        """Of the true class's softmax share."""
        return _true(self.rand) - _true(self.same)


def _true(prediction: Prediction) -> float:
    assert prediction.true_confidence is not None  # `evaluate` writes it
    return prediction.true_confidence


def _swapped(
    plain: list[Prediction], same: list[Prediction], rand: list[Prediction]
) -> list[_Swapped]:
    """The images that were answered in all three stages."""
    others = [{p.image: p for p in some} for some in (same, rand)]
    return [
        _Swapped(p, *(other[p.image] for other in others))
        for p in plain
        if all(p.image in other for other in others)
    ]


def _reliance(swapped: list[_Swapped], seed: int) -> Reliance:
    plain, same, rand = (
        [getattr(s, stage) for s in swapped] for stage in ("plain", "same", "rand")
    )
    gap = paired_difference(same, rand, seed).top1
    assert gap.p is not None  # McNemar's, of each paired change
    return Reliance(
        Estimate(gap.difference, gap.interval, gap.n),
        gap.p,
        estimate([s.change for s in swapped], (-1.0, 1.0), seed),
        plain=top1(plain, seed),
        mixed_same=top1(same, seed),
        mixed_rand=top1(rand, seed),
    )
