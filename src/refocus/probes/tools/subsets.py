"""Sufficient input subsets of a ViT by batched gradient back-selection.

Carter, Mueller, Jain, Gifford, AISTATS 2019; the batched form: Carter et al., NeurIPS 2021.
Appendix A of the paper uses them to show that ANY class can be reached this way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from refocus.relevance.answers import logits_of

CONFIDENCE = 0.9  # softmax share that makes a subset sufficient, as in the paper
_ROUNDS = 100  # of removal; each takes away the same share of the pixels


@dataclass(frozen=True)
class Subsets:
    """For each image: whether a subset was found, which pixels, how many, how confident.

    Pixels bool `[B, H, W]`, their share of the image `[B]`.
    """

    found: Tensor
    pixels: Tensor
    share: Tensor
    confidence: Tensor


def sufficient_subsets(
    model: nn.Module, images: Tensor, targets: Tensor, *, rounds: int = _ROUNDS
) -> Subsets:
    """The fewest pixels that still give the target class a softmax share of `CONFIDENCE`.

    All others are at the mean colour (0).

    Each round removes the pixels whose removal, to first order, lowers the target's confidence
    least (or raises it); the answer is the last round at which the confidence was high enough.
    images: normalized `[B, 3, H, W]`; targets `[B]`. The target need not be the predicted class.
    """
    count, _, height, width = images.shape
    total = height * width
    kept = torch.ones(count, total, device=images.device)
    best = Subsets(
        torch.zeros(count, dtype=torch.bool),
        torch.zeros(count, height, width, dtype=torch.bool),
        torch.ones(count),
        torch.zeros(count),
    )
    model.eval()
    for number in range(rounds):
        inputs = (images * kept.view(count, 1, height, width)).detach().requires_grad_()
        with torch.enable_grad():
            confidence = logits_of(model, inputs).softmax(1).gather(1, targets[:, None])[:, 0]
            (gradient,) = torch.autograd.grad(confidence.sum(), inputs)
        enough = (confidence >= CONFIDENCE).cpu()
        best.found[enough] = True
        best.pixels[enough] = kept.view(count, height, width).bool().cpu()[enough]
        best.share[enough] = kept.mean(1).cpu()[enough]
        best.confidence[enough] = confidence.detach().cpu()[enough]
        worth = (
            (gradient * inputs).sum(1).flatten(1).detach()
        )  # what the confidence would lose, to first order
        worth[kept == 0] = torch.inf
        left = total * (rounds - number - 1) // rounds
        gone = worth.argsort(1)[:, : int(kept[0].sum()) - left]
        kept = kept.scatter(1, gone, 0.0)
    return best
