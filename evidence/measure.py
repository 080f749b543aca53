"""What is measured of weights: development images for choices, test sets for the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from evidence.rows import Answers, Development, digest, pack
from evidence.sources import Source
from refocus import evaluate
from refocus.data.sampling import spread
from refocus.data.swaps import other_class_donors, swap_backgrounds
from refocus.data.transforms import MaskedImages, joint_transform
from refocus.relevance.answers import logits_of
from refocus.tuning.checks import interpolate

SHARES = (0.0, 0.5, 1.0)  # the base model, 50/50, the end of training
_IMAGES = 100  # for development at most, spread over the classes
_SWAPS, _MOST = 200, 8  # swapped images wanted in all, and of one image at most
_BATCH = 32


@dataclass(frozen=True)
class DevelopmentImages:
    """Images `[n, 3, H, W]` as they are, the same on backgrounds of other classes `[k n, ...]`."""

    plain: Tensor
    swapped: Tensor
    labels: Tensor


def development_images(model: nn.Module, source: Source) -> DevelopmentImages:
    """The swaps are those of the product, donors of other classes drawn by seeds 0, 1, ..."""
    samples = spread(source.dev.masked(model), _IMAGES, 0, skip_bad=True)
    data = MaskedImages(samples, joint_transform(model, train=False))
    columns = list(zip(*(data[i] for i in range(len(data))), strict=True))
    images, masks = torch.stack(columns[0]), torch.stack(columns[1])
    labels = torch.tensor(columns[2])
    rounds = min(_MOST, math.ceil(_SWAPS / len(images)))
    donors = [other_class_donors(labels, seed) for seed in range(rounds)]
    swapped = [swap_backgrounds(images, masks, images[d], masks[d]) for d in donors]
    return DevelopmentImages(images, torch.cat(swapped), labels)


def development(
    model: nn.Module,
    images: DevelopmentImages,
    line: tuple[dict[str, Tensor], dict[str, Tensor]],
    shares: Sequence[float] = SHARES,
) -> list[Development]:
    """Top-1 in percent at each share of the line between two weights; the model keeps the last."""
    found = []
    rounds = len(images.swapped) // len(images.plain)
    for share in shares:
        model.load_state_dict(interpolate(*line, share))
        plain = _top1(model, images.plain, images.labels)
        swapped = _top1(model, images.swapped, images.labels.repeat(rounds))
        found.append(Development(share, plain, swapped))
    return found


def _top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.inference_mode():
        guesses = torch.cat([logits_of(model, part).argmax(1) for part in images.split(_BATCH)])
    return 100 * float((guesses == labels).double().mean())


def read_test(model: nn.Module, folder: Path, readings: Sequence[str]) -> Answers:
    """A model's right answers on a test set, as those of the readings."""
    found = sorted(evaluate(model, folder).predictions, key=lambda p: p.image)
    counts: dict[str, int] = {}
    for p in found:
        name = p.image.split("/")[0]
        counts[name] = counts.get(name, 0) + 1
    bits = pack([p.right for p in found])
    return Answers(digest(p.image for p in found), counts, dict.fromkeys(readings, bits))
