"""Do no harm: after tuning, choose along the straight line between the original and the tuned weights.

Axes: images `[n, 3, H, W]`, masks `[n, 1, H, W]`, labels `[n]`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from refocus import losses
from refocus.objectives import OBJECTIVES
from refocus.relevance import minmax, relevance_patches, upsample
from refocus.shifts import other_class_donors, swap_backgrounds

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # points on the line from the original weights (0) to the tuned ones (1)
MIN_GAIN = 0.01  # share of the relevance loss that must go, or tuning changed nothing worth a new model
_BATCH = 32


def interpolate(start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """`(1 - a) theta_0 + a theta_1` (WiSE-FT, Wortsman et al., CVPR 2022, Eq. 1); the ends are exact."""
    if share in (0.0, 1.0):
        return end if share else start
    return {k: torch.lerp(v, end[k].to(v), share) if v.is_floating_point() else v for k, v in start.items()}


def harm_check(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> dict[str, float]:
    """Over the check images: top-1 in percent as they are and on the background of another class, and the relevance loss
    of the true class (paper Eq. 3 with the paper's weights), whatever the objective was.
    """
    model.eval().requires_grad_(False)
    weights = OBJECTIVES["relevance"].weights
    device = next(model.parameters()).device
    donors = other_class_donors(labels, seed=0)
    right = swapped_right = 0
    loss = 0.0
    for at in torch.arange(len(images)).split(_BATCH):
        x, m, y = images[at].to(device), masks[at].to(device), labels[at].to(device)
        with torch.enable_grad():
            logits, raw = relevance_patches(model, x, y, create_graph=False)
        relevance = minmax(upsample(raw.detach(), x.shape[-2:]))
        mask_loss = weights["background"] * losses.background(relevance, m[:, 0])
        mask_loss += weights["foreground"] * losses.foreground(relevance, m[:, 0])
        loss += mask_loss.item() * len(x)
        with torch.inference_mode():
            swapped = swap_backgrounds(x, m, images[donors[at]].to(device), masks[donors[at]].to(device))
            swapped_right += int((model(swapped).argmax(1) == y).sum())
        right += int((logits.argmax(1) == y).sum())
    n = len(images)
    return {"in_domain": 100 * right / n, "swapped": 100 * swapped_right / n, "relevance_loss": loss / n}


def choose(candidates: list[dict[str, float]], tolerance: float) -> tuple[int, str]:
    """The rule: (1) top-1 on the check images may fall by at most `tolerance` percentage points; (2) top-1 with swapped
    backgrounds may not fall at all; (3) of those left, the lowest relevance loss. The original, share 0, is always left.

    The best of these must lower the loss by at least 1 % of the original's, or nothing was gained and the original stays.

    (2) is ours: a map can be pushed onto the mask while the decision gets worse, and then the lower loss is no gain.
    Returns the position chosen and the finding in words.
    """
    before = candidates[0]
    legal = [
        i
        for i, c in enumerate(candidates)
        if c["in_domain"] >= before["in_domain"] - tolerance and c["swapped"] >= before["swapped"]
    ]
    chosen = min(legal, key=lambda i: (candidates[i]["relevance_loss"], i))
    if candidates[chosen]["relevance_loss"] > (1 - MIN_GAIN) * before["relevance_loss"]:
        chosen = 0
    after = candidates[chosen if chosen else -1]
    numbers = (
        f"top-1 {before['in_domain']:.1f} -> {after['in_domain']:.1f} %, with swapped backgrounds "
        f"{before['swapped']:.1f} -> {after['swapped']:.1f} %, relevance loss "
        f"{before['relevance_loss']:.4f} -> {after['relevance_loss']:.4f}"
    )
    if chosen:
        return chosen, f"tuning helped: {numbers} at share {after['share']:g} of the way to the tuned weights"
    return 0, (
        f"tuning did not help: the original weights are kept. Fully tuned would give {numbers}; the rule allows a loss of "
        f"{tolerance:g} points of top-1 and none with swapped backgrounds, for at least {MIN_GAIN:.0%} less relevance loss"
    )
