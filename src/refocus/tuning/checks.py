"""What the do-no-harm rule reads: answers of weights on the line from original to tuned.

Axes: images `[n, 3, H, W]`, masks `[n, 1, H, W]`, labels `[n]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from refocus.data.shifts import shifts, unseen
from refocus.data.swaps import other_class_pairs, swap_backgrounds
from refocus.objectives import losses
from refocus.objectives.registry import OBJECTIVES
from refocus.records import Sample
from refocus.relevance.answers import logits_of
from refocus.relevance.gae import explain

BATCH = 32  # images a forward pass
Advance = Callable[[], object]  # called after each batch


def _nothing() -> None:
    """Where nobody counts."""


def interpolate(
    start: dict[str, Tensor], end: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    """`(1 - a) theta_0 + a theta_1` (WiSE-FT, Wortsman et al., CVPR 2022, Eq. 1); exact ends."""
    if share in (0.0, 1.0):
        return end if share else start
    return {
        k: torch.lerp(v, end[k].to(v), share) if v.is_floating_point() else v
        for k, v in start.items()
    }


def answers(
    model: nn.Module,
    weights: Sequence[dict[str, Tensor]],
    images: Tensor,
    masks: Tensor,
    labels: Tensor,
    *,
    advance: Advance = _nothing,
) -> tuple[np.ndarray, np.ndarray]:
    """`right_answers` with each of `weights`: `[weights, n]`, `[weights, p]`; the last stay."""
    plain, swapped = [], []
    for each in weights:
        model.load_state_dict(each)
        found = right_answers(model, images, masks, labels, advance=advance)
        plain.append(found[0].double().numpy())
        swapped.append(found[1].double().numpy())
    return np.stack(plain), np.stack(swapped)


def unseen_answers(
    model: nn.Module,
    weights: Sequence[dict[str, Tensor]],
    samples: Sequence[Sample],
    transform: Callable[[Image.Image], Tensor],
    backgrounds: Sequence[Path] = (),
    *,
    advance: Advance = _nothing,
) -> dict[str, np.ndarray]:
    """Right answers `[weights, n]` on each kind of shift that no objective trains on.

    transform: image to what the model sees `[3, H, W]`. backgrounds: image files, for the kind
    `real`.
    """
    device = next(model.parameters()).device
    labels = torch.tensor([s.label for s in samples])
    found = {}
    model.eval()
    for kind in unseen(real=bool(backgrounds)):
        ((shift, shifted),) = shifts(samples, kind, 0, backgrounds=backgrounds)
        images = torch.stack([transform(shift(s)) for s in shifted])
        rows = []
        for each in weights:
            model.load_state_dict(each)
            with torch.inference_mode():
                parts = []
                for x in images.split(BATCH):
                    parts.append(logits_of(model, x.to(device)).argmax(1).cpu())
                    advance()
            rows.append((torch.cat(parts) == labels).double().numpy())
        found[kind] = np.stack(rows)
    return found


def right_answers(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    labels: Tensor,
    *,
    advance: Advance = _nothing,
) -> tuple[Tensor, Tensor]:
    """Which images are classified right, bool `[n]`, and what share of each pair of swaps, `[p]`.

    Images of different classes are paired, and each lends the other its background. A background
    that many images borrowed would make their answers err together, which no test of the rule
    allows for: so every photograph is in one pair, and a pair is what the rule counts.
    """
    device = next(model.parameters()).device
    plain = torch.zeros(len(images), dtype=torch.bool)
    pairs = other_class_pairs(labels, seed=0)
    swapped = torch.zeros(len(pairs))
    model.eval()
    with torch.inference_mode():
        for at in torch.arange(len(images)).split(BATCH):
            logits = logits_of(model, images[at].to(device))
            plain[at] = logits.argmax(1).cpu() == labels[at]
            advance()
        for at in torch.arange(len(pairs)).split(BATCH // 2) if len(pairs) else ():
            objects, grounds = pairs[at].T.flatten(), pairs[at].flip(1).T.flatten()
            own = images[objects].to(device), masks[objects].to(device)
            lent = images[grounds].to(device), masks[grounds].to(device)
            logits = logits_of(model, swap_backgrounds(*own, *lent))
            right = logits.argmax(1).cpu() == labels[objects]
            swapped[at] = right.view(2, -1).float().mean(0)
            advance()
    return plain, swapped


def relevance_loss(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> float:
    """Paper Eq. 3 for the true class with the paper's weights, for any objective.

    With 1 - S as the complement in every protocol, so that runs can be compared.
    """
    device = next(model.parameters()).device
    weights = OBJECTIVES["relevance"].weights
    total = 0.0
    for at in torch.arange(len(images)).split(BATCH):
        relevance, mask = (
            explain(model, images[at].to(device), labels[at]).relevance,
            masks[at, 0].to(device),
        )
        loss = weights["background"] * losses.background(relevance, mask) + weights[
            "foreground"
        ] * losses.foreground(relevance, mask)
        total += loss.item() * len(at)
    return total / len(images)
