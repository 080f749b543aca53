"""Predictions and maps -> numbers. Pure functions; accuracies are in percent, everything else in [0, 1]."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap
from sklearn.metrics import average_precision_score
from torch import Tensor

from refocus.errors import InputError
from refocus.records import Prediction
from refocus.relevance import minmax, upsample


def accuracy(predictions: Sequence[Prediction], names: Sequence[str]) -> dict[str, Any]:
    """Top-1 and top-5 in percent over all images, n, and the same per class by name; None where there is no image."""
    groups: dict[int, list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[p.label].append(p)
    per_class = {names[label]: _top(groups[label]) for label in sorted(groups)}
    return {**_top(predictions), "per_class": per_class}


def _top(predictions: Sequence[Prediction]) -> dict[str, Any]:
    n = len(predictions)
    top1 = sum(p.top5[0] == p.label for p in predictions)
    top5 = sum(p.label in p.top5 for p in predictions)
    return {"top1": 100 * top1 / n if n else None, "top5": 100 * top5 / n if n else None, "n": n}


def paired_difference(ours: Sequence[Prediction], theirs: Sequence[Prediction], seed: int = 0) -> dict[str, Any]:
    """Top-1 of `ours` minus `theirs` in percentage points over the same images, with a 95 % bootstrap interval (percentile,
    10 000 resamples of images), and how many images were corrected and broken. None where fewer than two images are shared.
    """
    other = {p.image: p for p in theirs}
    pairs = [(p.top5[0] == p.label, other[p.image].top5[0] == p.label) for p in ours if p.image in other]
    if len(pairs) < 2:
        return {"top1": None, "interval": None, "n": len(pairs), "corrected": 0, "broken": 0}
    change = np.array([float(a) - float(b) for a, b in pairs])
    interval = [100 * change.mean()] * 2  # all images changed alike: the interval is that point
    if np.ptp(change) > 0:
        found = bootstrap(
            (change,), np.mean, n_resamples=10_000, batch=500, method="percentile", rng=np.random.default_rng(seed)
        ).confidence_interval
        interval = [100 * found.low, 100 * found.high]
    return {
        "top1": float(100 * change.mean()),
        "interval": [float(v) for v in interval],
        "n": len(pairs),
        "corrected": int((change > 0).sum()),
        "broken": int((change < 0).sum()),
    }


def background_share(patches: Tensor, masks: Tensor) -> Tensor:
    """Share of the raw relevance that lies on the background, per image `[B]` in [0, 1]; 0.5 says half of it.

    patches: raw relevance `[B, h, w]` (`Explanation.patches`). masks: `[B, H, W]` in [0, 1]. A map without any relevance: NaN.
    """
    raw = upsample(patches, masks.shape[-2:])
    return (raw * (1 - masks)).sum((1, 2)) / raw.sum((1, 2))


def segmentation_scores(relevance: Tensor, masks: Tensor) -> dict[str, float]:
    """How well relevance maps segment the object: the published test (Chefer et al., CVPR 2021; Table 3 of the paper).

    Each map is min-max normalized and binarized at its own mean. Pixel accuracy and the mean IoU of background and foreground
    accumulate over the whole set; average precision is taken per image over `[1 - R, R]` and then averaged.

    Args:
        relevance: `[B, H, W]`, any range. masks: `[B, H, W]`; foreground where above 0.5.

    Returns:
        {"pixel_accuracy", "miou", "map"} in [0, 1].
    """
    if relevance.shape != masks.shape or relevance.ndim != 3 or not len(relevance):
        raise InputError(
            f"segmentation_scores: relevance {list(relevance.shape)} and masks {list(masks.shape)} must both be [B, H, W]"
        )
    r = minmax(relevance.float())
    truth = masks > 0.5
    guess = r > r.mean((1, 2), keepdim=True)
    classes = [(guess == side, truth == side) for side in (False, True)]
    ious = [((a & b).sum() / (a | b).sum()).item() if (a | b).any() else 1.0 for a, b in classes]
    precisions = []
    for map_, mask in zip(r.cpu().numpy(), truth.cpu().numpy(), strict=True):
        scores, labels = np.stack([1 - map_, map_]), np.stack([~mask, mask])
        precisions.append(average_precision_score(labels.ravel(), scores.ravel()))
    return {
        "pixel_accuracy": (guess == truth).double().mean().item(),
        "miou": float(np.mean(ious)),
        "map": float(np.mean(precisions)),
    }


def mean(values: Sequence[Tensor]) -> float:
    """Mean over a list of `[B]` tensors, NaN entries left out."""
    return torch.cat(list(values)).double().nanmean().item()
