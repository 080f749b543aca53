"""Predictions and maps -> numbers.

Pure functions; accuracies are in percent, everything else in [0, 1].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from refocus.errors import InputError
from refocus.evaluation.intervals import calibration, mcnemar
from refocus.intervals import mean_interval
from refocus.records import Prediction
from refocus.relevance.gae import minmax, upsample
from refocus.vit.inputs import check_maps, check_masks

PERCENT, DIFFERENCE = (
    (0.0, 100.0),
    (-100.0, 100.0),
)  # what a mean, and a difference of means, of percentages can be


def accuracy(
    predictions: Sequence[Prediction], names: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Top-1 and top-5 in percent with 95 % intervals, n, the calibration error, and the same per
    class by name.

    None where there is no image.
    """
    groups: dict[int, list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[p.label].append(p)
    return {
        **_top(predictions),
        "top1_interval": mean_interval([100 * p.right for p in predictions], PERCENT, seed),
        "top5_interval": mean_interval([100 * p.right5 for p in predictions], PERCENT, seed),
        "calibration_error": calibration([_confident(predictions)])[0],
        "per_class": {names[label]: _top(groups[label]) for label in sorted(groups)},
    }


def _top(predictions: Sequence[Prediction]) -> dict[str, Any]:
    n = len(predictions)
    top1, top5 = sum(p.right for p in predictions), sum(p.right5 for p in predictions)
    return {"top1": 100 * top1 / n if n else None, "top5": 100 * top5 / n if n else None, "n": n}


def _confident(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p.confidence for p in predictions]), np.array(
        [p.right for p in predictions], dtype=float
    )


def paired(
    ours: Sequence[Prediction], theirs: Sequence[Prediction]
) -> list[tuple[Prediction, Prediction]]:
    """The images that both answered, in the order of `ours`."""
    other = {p.image: p for p in theirs}
    return [(p, other[p.image]) for p in ours if p.image in other]


def paired_difference(
    ours: Sequence[Prediction], theirs: Sequence[Prediction], seed: int = 0
) -> dict[str, Any]:
    """Top-1 and top-5 of `ours` minus `theirs` in percentage points over the same images, with 95 %
    bootstrap intervals over images, how many images were corrected and broken (top-1), and
    McNemar's exact p-value. None for fewer than two shared images.
    """
    pairs = paired(ours, theirs)
    change = np.array([int(a.right) - int(b.right) for a, b in pairs])
    change5 = np.array([int(a.right5) - int(b.right5) for a, b in pairs])
    corrected, broken = int((change > 0).sum()), int((change < 0).sum())
    return {
        "top1": float(100 * change.mean()) if len(pairs) > 1 else None,
        "interval": mean_interval(100 * change, DIFFERENCE, seed),
        "top5": float(100 * change5.mean()) if len(pairs) > 1 else None,
        "top5_interval": mean_interval(100 * change5, DIFFERENCE, seed),
        "n": len(pairs),
        "corrected": corrected,
        "broken": broken,
        "mcnemar": mcnemar(corrected, broken),
    }


def group_differences(
    ours: Sequence[Prediction],
    theirs: Sequence[Prediction],
    group: Callable[[Prediction], str],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """`paired_difference` of each group with both accuracies, largest gain first; `group` names the
    group of an image.
    """
    groups: dict[str, list[tuple[Prediction, Prediction]]] = defaultdict(list)
    for pair in paired(ours, theirs):
        groups[group(pair[0])].append(pair)
    rows = []
    for name in sorted(groups):
        after, before = zip(*groups[name], strict=True)
        change = paired_difference(after, before, seed)
        rows.append(
            {
                "name": name,
                "top1": _top(after)["top1"],
                "before": _top(before)["top1"],
                "difference": change,
            }
        )
    return sorted(rows, key=lambda row: -(row["top1"] - row["before"]))


def group_accuracies(
    predictions: Sequence[Prediction], group: Callable[[Prediction], str], seed: int = 0
) -> list[dict[str, Any]]:
    """Top-1 of each group with its interval, the worst group first."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[group(p)].append(p)
    rows = [
        {
            "name": name,
            **_top(ps),
            "top1_interval": mean_interval([100 * p.right for p in ps], PERCENT, seed),
        }
        for name, ps in sorted(groups.items())
    ]
    return sorted(rows, key=lambda row: row["top1"])


def calibration_difference(
    ours: Sequence[Prediction], theirs: Sequence[Prediction]
) -> dict[str, Any]:
    """Squared calibration error of `ours` minus `theirs` over the same images, with a 95 %
    interval.
    """
    pairs = paired(ours, theirs)
    return calibration([_confident([a for a, _ in pairs]), _confident([b for _, b in pairs])])[-1]


def background_share(patches: Tensor, masks: Tensor) -> Tensor:
    """Share of the raw relevance that lies on the background; 0.5 says half of it.

    One minus the energy inside the mask (Wang et al., CVPR Workshops 2020, the energy-based
    pointing game), over the upsampled map.

    Args:
        patches: raw relevance `[B, h, w]`, never negative (`Explanation.patches`).
        masks: `[B, H, W]` in [0, 1]; 1 is the object.

    Returns:
        One share per image `[B]` in [0, 1]; NaN for a map without any relevance.

    Raises:
        InputError: another type, shape or range.

    Example:
        >>> import torch, refocus
        >>> masks = torch.zeros(1, 4, 4)
        >>> masks[:, :, :2] = 1
        >>> refocus.background_share(torch.ones(1, 4, 4), masks).tolist()
        [0.5]
    """
    check_maps("patches", patches, "B, h, w")
    masks = check_masks("masks", masks, "B, H, W")
    if len(patches) != len(masks):
        raise InputError(
            f"masks: {len(masks)} for {len(patches)} maps of patches; legal is one for each"
        )
    raw = upsample(patches, masks.shape[-2:])
    return (raw * (1 - masks)).sum((1, 2)) / raw.sum((1, 2))


def segmentation_scores(relevance: Tensor, masks: Tensor) -> dict[str, float]:
    """How well relevance maps segment the object: the published test.

    Chefer et al., CVPR 2021; Table 3 of the method's paper. Each map is min-max normalized and
    binarized at its own mean. Pixel accuracy and the mean IoU of background and foreground
    accumulate over the whole set; average precision is taken per image over `[1 - R, R]` and then
    averaged.

    Args:
        relevance: `[B, H, W]`, any finite range (`Explanation.relevance`).
        masks: `[B, H, W]` in [0, 1]; foreground where above 0.5.

    Returns:
        {"pixel_accuracy", "miou", "map"} in [0, 1].

    Raises:
        InputError: another type, shape or range.

    Example:
        >>> import torch, refocus
        >>> masks = torch.zeros(2, 8, 8)
        >>> masks[:, 2:6, 2:6] = 1
        >>> refocus.segmentation_scores(relevance=masks, masks=masks)
        {'pixel_accuracy': 1.0, 'miou': 1.0, 'map': 1.0}
    """
    relevance = check_maps("relevance", relevance, "B, H, W")
    masks = check_masks("masks", masks, "B, H, W")
    if relevance.shape != masks.shape or not len(relevance):
        raise InputError(
            f"segmentation_scores: relevance {list(relevance.shape)} and masks {list(masks.shape)} "
            "must both be [B, H, W]"
        )
    if not bool(relevance.isfinite().all()):
        raise InputError("relevance: holds NaN or infinite values; legal are finite floats")
    columns = np.array([segmentation_counts(r, m) for r, m in zip(relevance, masks, strict=True)])
    return {
        name: float(statistic(columns.sum(0)[None])[0]) for name, statistic in SEGMENTATION.items()
    }


def segmentation_counts(relevance: Tensor, mask: Tensor) -> list[float]:
    """What one image adds to the published test; relevance, mask `[H, W]` -> [1, share of right
    pixels, intersection and union of background, intersection and union of foreground (in shares of
    the image), average precision].
    """
    r = minmax(relevance[None].float())[0].cpu()
    truth = mask.cpu() > 0.5
    guess = r > r.mean()
    sides = [(guess == side, truth == side) for side in (False, True)]
    overlaps = [
        v
        for a, b in sides
        for v in ((a & b).double().mean().item(), (a | b).double().mean().item())
    ]
    scores, labels = torch.stack([1 - r, r]).numpy(), torch.stack([~truth, truth]).numpy()
    precision = float(average_precision_score(labels.ravel(), scores.ravel()))
    return [1.0, (guess == truth).double().mean().item(), *overlaps, precision]


def _miou(sums: np.ndarray) -> np.ndarray:
    """Mean IoU of background and foreground; a side that neither map nor mask has is no error."""
    return np.mean(
        [
            np.where(sums[:, u] > 0, sums[:, u - 1] / np.maximum(sums[:, u], 1e-12), 1.0)
            for u in (3, 5)
        ],
        axis=0,
    )


SEGMENTATION: dict[
    str, Callable[[np.ndarray], np.ndarray]
] = {  # sums of `segmentation_counts` over images `[r, 7]` -> `[r]`
    "pixel_accuracy": lambda sums: sums[:, 1] / sums[:, 0],
    "miou": _miou,
    "map": lambda sums: sums[:, 6] / sums[:, 0],
}


def pointing_hit(relevance: Tensor, mask: Tensor) -> bool:
    """Pointing game (Zhang et al., IJCV 2018): does the map's maximum lie on the object, or nearer
    to it than 15 pixels of an image of 224? relevance, mask `[H, W]`.
    """
    truth = mask.cpu().numpy() > 0.5
    peak = np.unravel_index(int(relevance.argmax()), relevance.shape)
    ys, xs = np.nonzero(truth)
    tolerance = 15 * min(truth.shape) / 224
    return bool(len(ys)) and bool((np.hypot(ys - peak[0], xs - peak[1]) < tolerance).any())


def mean(values: Sequence[Tensor]) -> float:
    """Mean over a list of `[B]` tensors, NaN entries left out."""
    return torch.cat(list(values)).double().nanmean().item()
