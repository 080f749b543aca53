"""Do no harm: after tuning, choose along the straight line between the original and the tuned
weights.

Axes: images `[n, 3, H, W]`, masks `[n, 1, H, W]`, labels `[n]`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import permutation_test
from torch import Tensor, nn

from refocus.data.swaps import other_class_donors, swap_backgrounds
from refocus.objectives import losses
from refocus.objectives.registry import OBJECTIVES
from refocus.relevance.attention import logits_of
from refocus.relevance.gae import explain

SHARES = (
    0.0,
    0.25,
    0.5,
    0.75,
    1.0,
)  # points on the line from the original weights (0) to the tuned ones (1)
CHANCE = 0.05  # level of the one-sided test that a gain on swapped backgrounds must pass
_SWAPS, _MOST_SWAPS = 400, 8  # swapped images wanted in all; at most so many of one image
_BATCH = 32


@dataclass(frozen=True)
class Candidate:
    """One point on the line, measured on the check images: top-1 in percent as they are and with
    swapped backgrounds; how many images the swaps find right more often than the original does
    (corrected) or less often (broken), and the chance of such a gain were there none. The relevance
    loss is measured where it can matter: at both ends, and where the candidate may stand.
    """

    share: float
    in_domain: float
    swapped: float
    corrected: int
    broken: int
    chance: float
    relevance_loss: float | None

    def stands(self, original: Candidate, tolerance: float) -> bool:
        """Rules (1) and (2) of `choose`."""
        return self.in_domain >= original.in_domain - tolerance and self.chance < CHANCE


def interpolate(
    start: dict[str, Tensor], end: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    """`(1 - a) theta_0 + a theta_1` (WiSE-FT, Wortsman et al., CVPR 2022, Eq. 1); the ends are
    exact.
    """
    if share in (0.0, 1.0):
        return end if share else start
    return {
        k: torch.lerp(v, end[k].to(v), share) if v.is_floating_point() else v
        for k, v in start.items()
    }


def candidates(
    model: nn.Module,
    start: dict[str, Tensor],
    end: dict[str, Tensor],
    images: Tensor,
    masks: Tensor,
    labels: Tensor,
    tolerance: float,
    shares: Sequence[float] = SHARES,
) -> list[Candidate]:
    """Measure every share, 0 first and 1 last; `model` is left with the weights of the last."""
    found: list[Candidate] = []
    before: Tensor | None = None
    for share in shares:
        model.load_state_dict(interpolate(start, end, share))
        plain, swapped = right_answers(model, images, masks, labels)
        before = swapped if before is None else before
        change = swapped - before
        corrected, broken = int((change > 0).sum()), int((change < 0).sum())
        in_domain, on_swapped = (100 * right.double().mean().item() for right in (plain, swapped))
        candidate = Candidate(
            share, in_domain, on_swapped, corrected, broken, chance_of_gain(change), None
        )
        if share in (0.0, 1.0) or candidate.stands(found[0], tolerance):
            candidate = replace(
                candidate, relevance_loss=relevance_loss(model, images, masks, labels)
            )
        found.append(candidate)
    return found


def chance_of_gain(change: Tensor) -> float:
    """P-value of the paired sign-flip test: is the mean change over images `[n]` above 0? With one
    swap an image, the sign test.
    """
    moved = change[change != 0].numpy()
    if not len(moved):
        return 1.0
    rng = np.random.default_rng(0)
    padded = np.append(moved, 0.0)  # scipy wants two values; a zero changes no mean's order
    found = permutation_test(
        (padded,),
        np.mean,
        permutation_type="samples",
        alternative="greater",
        n_resamples=9999,
        rng=rng,
    )
    return float(found.pvalue)


def right_answers(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Which images are classified right as they are, bool `[n]`, and on what share of the
    backgrounds of images of other classes, float `[n]`. Few images get several backgrounds each (at
    most 8), so that there are about 400 swaps: one alone says little.
    """
    device = next(model.parameters()).device
    plain = torch.zeros(len(images), dtype=torch.bool)
    rounds = min(_MOST_SWAPS, math.ceil(_SWAPS / len(images)))
    swapped = torch.zeros(rounds, len(images))
    model.eval()
    with torch.inference_mode():
        for at in torch.arange(len(images)).split(_BATCH):
            x, m, y = images[at].to(device), masks[at].to(device), labels[at].to(device)
            plain[at] = (logits_of(model, x).argmax(1) == y).cpu()
            for number in range(rounds):
                donors = other_class_donors(labels, seed=number)[at]
                moved = swap_backgrounds(x, m, images[donors].to(device), masks[donors].to(device))
                swapped[number, at] = (logits_of(model, moved).argmax(1) == y).cpu().float()
    return plain, swapped.mean(0)


def relevance_loss(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> float:
    """Paper Eq. 3 for the true class with the paper's weights, whatever the objective was."""
    device = next(model.parameters()).device
    weights = OBJECTIVES["relevance"].weights
    total = 0.0
    for at in torch.arange(len(images)).split(_BATCH):
        relevance, mask = (
            explain(model, images[at].to(device), labels[at]).relevance,
            masks[at, 0].to(device),
        )
        loss = weights["background"] * losses.background(relevance, mask) + weights[
            "foreground"
        ] * losses.foreground(relevance, mask)
        total += loss.item() * len(at)
    return total / len(images)


def choose(found: list[Candidate], tolerance: float) -> tuple[int, str]:
    """The rule. A candidate stands if (1) its top-1 falls by at most `tolerance` percentage points,
    and (2) its top-1 with swapped backgrounds rises by more than chance (`chance_of_gain` below
    `CHANCE`). (3) Of those that stand, the lowest relevance loss; if none does, the original, which
    is found[0].

    (2) is ours: a map can be pushed onto the mask while the decision gets no better, and then the
    lower loss is no gain. Returns the position chosen and the finding in words.
    """
    before = found[0]
    standing = {
        i: c.relevance_loss
        for i, c in enumerate(found)
        if i and c.stands(before, tolerance) and c.relevance_loss is not None
    }
    chosen = min(standing, key=lambda i: standing[i], default=0)
    after = found[chosen or -1]
    numbers = (
        f"top-1 {before.in_domain:.1f} -> {after.in_domain:.1f} %, with swapped backgrounds "
        f"{before.swapped:.1f} -> "
        f"{after.swapped:.1f} % ({after.corrected} corrected, {after.broken} broken), relevance "
        "loss "
        f"{before.relevance_loss:.4f} -> {after.relevance_loss:.4f}"
    )
    if chosen:
        return (
            chosen,
            f"tuning helped: {numbers} at share {after.share:g} of the way to the tuned weights",
        )
    return 0, (
        f"tuning did not help: the original weights are kept. The tuned ones would give {numbers}; "
        "the rule wants a gain "
        f"with swapped backgrounds beyond chance, and top-1 to fall by {tolerance:g} at most"
    )


def as_record(candidate: Candidate) -> dict[str, Any]:
    """For results.json."""
    return asdict(candidate)
