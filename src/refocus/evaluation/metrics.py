"""Predictions and maps -> numbers.

Pure functions; accuracies are in percent, everything else in [0, 1].
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from refocus.errors import InputError
from refocus.evaluation.intervals import calibration, estimate, mean_change
from refocus.records import Prediction
from refocus.relevance.gae import minmax, upsample
from refocus.results import (
    Accuracy,
    AccuracyChange,
    Change,
    ClassAccuracy,
    Estimate,
    GroupAccuracy,
    GroupChange,
)
from refocus.vit.inputs import check_maps, check_masks, shown

PERCENT, DIFFERENCE = (
    (0.0, 100.0),
    (-100.0, 100.0),
)  # what a mean, and a difference of means, of percentages can be


def accuracy(predictions: Sequence[Prediction], names: Sequence[str], seed: int = 0) -> Accuracy:
    """Top-1 and top-5 in percent with 95 % intervals, the calibration error, and per class.

    Args:
        predictions: one for each image.
        names: of the classes, by index.
        seed: of the intervals.
    """
    groups: dict[int, list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[p.label].append(p)
    return Accuracy(
        top1(predictions, seed),
        estimate([100.0 * p.right5 for p in predictions], PERCENT, seed),
        calibration([_confident(predictions)]).model,
        {names[label]: _of_class(groups[label]) for label in sorted(groups)},
    )


def top1(predictions: Sequence[Prediction], seed: int = 0) -> Estimate:
    """Top-1 in percent with its 95 % interval."""
    return estimate([100.0 * p.right for p in predictions], PERCENT, seed)


def _share(right: Sequence[bool]) -> float:
    """Percent of at least one answer."""
    return 100 * sum(right) / len(right)


def _of_class(predictions: Sequence[Prediction]) -> ClassAccuracy:
    return ClassAccuracy(
        _share([p.right for p in predictions]),
        _share([p.right5 for p in predictions]),
        len(predictions),
    )


def _confident(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p.confidence for p in predictions]), np.array(
        [p.right for p in predictions], dtype=float
    )


def paired(
    model: Sequence[Prediction], against: Sequence[Prediction]
) -> list[tuple[Prediction, Prediction]]:
    """The images that both answered, in the order of `model`."""
    other = {p.image: p for p in against}
    return [(p, other[p.image]) for p in model if p.image in other]


def paired_difference(
    model: Sequence[Prediction], against: Sequence[Prediction], seed: int = 0
) -> AccuracyChange:
    """Top-1 and top-5 of `model` minus `against` in percentage points over the same images.

    With 95 % intervals over images, McNemar's exact p-value and how many images were corrected and
    broken. No difference for fewer than two shared images.
    """
    pairs = paired(model, against)
    change = np.array([int(a.right) - int(b.right) for a, b in pairs])
    change5 = np.array([int(a.right5) - int(b.right5) for a, b in pairs])
    return AccuracyChange(_points(change, seed), _points(change5, seed))


def _points(change: np.ndarray, seed: int) -> Change:
    """Mean of changes of one image each, -1, 0 or 1: in points."""
    found = mean_change(100 * change, DIFFERENCE, seed)
    return replace(
        found,
        difference=found.difference if found.n > 1 else None,
        corrected=int((change > 0).sum()),
        broken=int((change < 0).sum()),
    )


def group_differences(
    model: Sequence[Prediction],
    against: Sequence[Prediction],
    group: Callable[[Prediction], str],
    seed: int = 0,
) -> tuple[GroupChange, ...]:
    """`paired_difference` of each group with both accuracies, largest gain first.

    Args:
        model: its predictions.
        against: those of the other model; images that only one has answered do not count.
        group: names the group of an image.
        seed: of the intervals.
    """
    groups: dict[str, list[tuple[Prediction, Prediction]]] = defaultdict(list)
    for pair in paired(model, against):
        groups[group(pair[0])].append(pair)
    rows = []
    for name in sorted(groups):
        ours, theirs = zip(*groups[name], strict=True)
        after, before = (_share([p.right for p in some]) for some in (ours, theirs))
        rows.append(GroupChange(name, after, before, paired_difference(ours, theirs, seed)))
    return tuple(sorted(rows, key=lambda row: -row.gain))


def group_accuracies(
    predictions: Sequence[Prediction], group: Callable[[Prediction], str], seed: int = 0
) -> tuple[GroupAccuracy, ...]:
    """Accuracies of each group, the lowest top-1 first; `group` names the group of an image."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[group(p)].append(p)
    rows = [(_share([p.right for p in some]), name, some) for name, some in sorted(groups.items())]
    return tuple(
        GroupAccuracy(name, top1(some, seed), _share([p.right5 for p in some]))
        for _, name, some in sorted(rows, key=lambda row: row[:2])
    )


def calibration_difference(model: Sequence[Prediction], against: Sequence[Prediction]) -> Change:
    """Squared calibration error of `model` minus `against` over the same images.

    With a 95 % interval.
    """
    pairs = paired(model, against)
    change = calibration(
        [_confident([a for a, _ in pairs]), _confident([b for _, b in pairs])]
    ).change
    assert change is not None  # of two models there is one
    return change


def background_share(
    patches: Tensor, masks: Tensor, covered: Sequence[int] | None = None
) -> Tensor:
    """Share of the raw relevance that lies on the background; 0.5 says half of it.

    One minus the energy inside the mask (Wang et al., CVPR Workshops 2020, the energy-based
    pointing game), over the upsampled map.

    Args:
        patches: raw relevance `[B, h, w]`, never negative (`Explanation.patches`).
        masks: `[B, H, W]` in [0, 1]; 1 is the object.
        covered: (rows, columns) of the masks' pixels that the patches cover
            (`Explanation.covered`); None: all. It matters where the model's input is no multiple
            of its patch.

    Returns:
        One share per image `[B]` in [0, 1]; NaN for a map without any relevance.

    Raises:
        InputError: another type, shape or range.

    Examples:
        >>> import torch, refocus
        >>> masks = torch.zeros(1, 4, 4)
        >>> masks[:, :, :2] = 1
        >>> refocus.background_share(torch.ones(1, 4, 4), masks).tolist()
        [0.5]
    """
    patches = check_maps("patches", patches, "B, h, w")
    low, high = (patches.min().item(), patches.max().item()) if patches.numel() else (0.0, 0.0)
    if not (low >= 0 and math.isfinite(high)):
        raise InputError(
            f"patches: values from {low:g} to {high:g}; must be raw relevance, finite and never "
            "negative (Explanation.patches)"
        )
    masks = check_masks("masks", masks, "B, H, W")
    if len(patches) != len(masks):
        raise InputError(
            f"masks: {len(masks)} for {len(patches)} maps of patches; must be one for each"
        )
    if covered is not None and not _two_sides(covered):
        raise InputError(
            f"covered: {shown(covered)}; must be two positive whole numbers, rows and columns of "
            "pixels"
        )
    raw = upsample(patches, masks.shape[-2:], covered)
    return (raw * (1 - masks)).sum((1, 2)) / raw.sum((1, 2))


def _two_sides(covered: object) -> bool:
    sides = tuple(covered) if isinstance(covered, Sequence) else ()
    return len(sides) == 2 and all(type(x) is int and x > 0 for x in sides)


@dataclass(frozen=True)
class SegmentationScores:
    """The published test of maps against masks, each number in [0, 1].

    pixel_accuracy: share of right pixels. miou: mean IoU of background and foreground. map: mean
    average precision.
    """

    pixel_accuracy: float
    miou: float
    map: float


def segmentation_scores(relevance: Tensor, masks: Tensor) -> SegmentationScores:
    """How well relevance maps segment the object: the published test.

    Chefer et al., CVPR 2021; Table 3 of the method's paper. Each map is min-max normalized and
    binarized at its own mean. Pixel accuracy and the mean IoU of background and foreground
    accumulate over the whole set; average precision is taken per image over `[1 - R, R]` and then
    averaged.

    Args:
        relevance: `[B, H, W]`, any finite range (`Explanation.relevance`).
        masks: `[B, H, W]` in [0, 1]; foreground where above 0.5.

    Returns:
        `pixel_accuracy`, `miou` and `map` (mean average precision), each in [0, 1].

    Raises:
        InputError: another type, shape or range.

    Examples:
        >>> import torch, refocus
        >>> masks = torch.zeros(2, 8, 8)
        >>> masks[:, 2:6, 2:6] = 1
        >>> refocus.segmentation_scores(relevance=masks, masks=masks).miou
        1.0
    """
    relevance = check_maps("relevance", relevance, "B, H, W")
    masks = check_masks("masks", masks, "B, H, W")
    if relevance.shape != masks.shape or not len(relevance):
        raise InputError(
            f"segmentation_scores: relevance {list(relevance.shape)} and masks {list(masks.shape)} "
            "must both be [B, H, W]"
        )
    if not bool(relevance.isfinite().all()):
        raise InputError("relevance: holds NaN or infinite values; must be finite floats")
    columns = np.array([segmentation_counts(r, m) for r, m in zip(relevance, masks, strict=True)])
    sums = columns.sum(0)[None]
    return SegmentationScores(
        **{name: float(statistic(sums)[0]) for name, statistic in SEGMENTATION.items()}
    )


def segmentation_counts(relevance: Tensor, mask: Tensor) -> list[float]:
    """What one image adds to the published test.

    relevance, mask `[H, W]` -> [1, share of right pixels, intersection and union of background,
    intersection and union of foreground (in shares of the image), average precision].
    """
    r = minmax(relevance.detach()[None].float())[0].cpu()
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
    values: np.ndarray = np.mean(
        [
            np.where(sums[:, u] > 0, sums[:, u - 1] / np.maximum(sums[:, u], 1e-12), 1.0)
            for u in (3, 5)
        ],
        axis=0,
    )
    return values


SEGMENTATION: dict[
    str, Callable[[np.ndarray], np.ndarray]
] = {  # sums of `segmentation_counts` over images `[r, 7]` -> `[r]`
    "pixel_accuracy": lambda sums: sums[:, 1] / sums[:, 0],
    "miou": _miou,
    "map": lambda sums: sums[:, 6] / sums[:, 0],
}


def object_seen(masks: Tensor, covered: Sequence[int] | None = None) -> Tensor:
    """Whether a model sees anything of the object: bool `[B]`.

    Args:
        masks: `[B, H, W]` in [0, 1], cropped as the model sees the image; object where above 0.5.
        covered: as of `background_share`.
    """
    rows, columns = masks.shape[-2:] if covered is None else covered
    return (masks[:, :rows, :columns] > 0.5).flatten(1).any(1)


def pointing_hit(relevance: Tensor, mask: Tensor) -> bool | None:
    """Pointing game (Zhang et al., IJCV 2018): does the map's maximum lie on the object?

    Or nearer to it than 15 pixels of an image of 224. None where there is no object, or the map is
    constant and so has no maximum. relevance, mask `[H, W]`.
    """
    truth = mask.cpu().numpy() > 0.5
    if not truth.any() or relevance.max() == relevance.min():
        return None
    peak = np.unravel_index(int(relevance.argmax()), relevance.shape)
    ys, xs = np.nonzero(truth)
    tolerance = 15 * min(truth.shape) / 224
    return bool((np.hypot(ys - peak[0], xs - peak[1]) < tolerance).any())


def mean(values: Sequence[Tensor]) -> float:
    """Mean over a list of `[B]` tensors, NaN entries left out."""
    return torch.cat(list(values)).double().nanmean().item()
