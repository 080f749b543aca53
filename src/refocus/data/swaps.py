"""Backgrounds without their objects, and the background swap, on the model's grid.

Axes: images `[B, 3, H, W]`, masks `[B, 1, H, W]` in [0, 1].
"""

from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.nn import functional as F

# a pixel counts as background only where the mask is below this: soft object edges must not leak
_SURE = 0.05
MARGIN = 0.04  # of the shorter side, filled around an object that is taken out


def fill_object(images: Tensor, masks: Tensor) -> Tensor:
    """Replace the object by what surrounds it.

    Normalized averages at halved and halved resolution (push-pull).

    Background pixels stay as they are; a hole takes the mean of the nearest scale at which it sees
    background. An image without any background, whose mask is all of it, becomes black.
    """
    known = (masks < _SURE).to(images.dtype)
    return _pull(images * known, known)


def _pull(weighted: Tensor, known: Tensor) -> Tensor:
    height, width = known.shape[-2:]
    if min(height, width) <= 1:
        mean = weighted.sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1e-6)
        coarse = mean.expand_as(weighted)
    else:
        smaller = [
            F.avg_pool2d(t, 2, ceil_mode=True, count_include_pad=False) for t in (weighted, known)
        ]
        coarse = F.interpolate(
            _pull(*smaller), size=(height, width), mode="bilinear", align_corners=False
        )
    covered = (known > 0).to(known.dtype)
    return covered * weighted / known.clamp(min=1e-6) + (1 - covered) * coarse


def widened(masks: Tensor, margin: float = MARGIN) -> Tensor:
    """Masks `[..., 1, H, W]` grown on all sides by a share of the image's shorter side."""
    pixels = round(margin * min(masks.shape[-2:]))
    return _reaching(_reaching(masks, pixels, -1), pixels, -2)


def taken_out(masks: Tensor, margin: float = MARGIN) -> Tensor:
    """What is filled in where an object is taken out, `[..., 1, H, W]`: its mask, widened.

    An object that leaves less than the margin free on all sides is taken as it is: its colours
    would else be filled from nothing.
    """
    wide = widened(masks, margin)
    return torch.where(wide.amin((-3, -2, -1), keepdim=True) < _SURE, wide, masks)


def _reaching(masks: Tensor, pixels: int, axis: int) -> Tensor:
    """The largest value within so many pixels along an axis.

    Windows grow by doubling: a pooling kernel of a photograph's margin is hundreds of times slower.
    """
    edge = [0, 0, pixels, pixels] if axis == -2 else [pixels, pixels]
    masks, wide = F.pad(masks, edge), 1  # masks are never below 0
    while wide < 2 * pixels + 1:
        step = min(wide, 2 * pixels + 1 - wide)
        length = masks.shape[axis] - step
        masks = torch.maximum(masks.narrow(axis, 0, length), masks.narrow(axis, step, length))
        wide += step
    return masks


def swap_backgrounds(
    images: Tensor, masks: Tensor, donors: Tensor, donor_masks: Tensor, margin: float = MARGIN
) -> Tensor:
    """Put each object on a donor's background, the donor's own object filled in.

    That is "mixed" in Xiao et al., ICLR 2021.

    margin: of the donor's object, filled in as well. Masks are often a little too tight, and the
        rim of the object that they leave tells what stood there.

    A donor whose mask is all of it lends black.
    """
    return masks * images + (1 - masks) * fill_object(donors, taken_out(donor_masks, margin))


def next_donors(size: int, turns: int) -> list[Tensor]:
    """For each turn, whose background each image of a batch gets: its neighbours in turn.

    Axes: `turns` tensors of positions `[size]`.
    """
    return [(torch.arange(size) - turn) % size for turn in range(1, turns + 1)]


def other_class_neighbours(labels: Tensor, turns: int) -> list[Tensor]:
    """The same among images of other classes, where a batch has any; labels `[B]`.

    Fewer of them than turns come several times. A donor of the image's own class would keep the
    shortcut that a swap is to break.
    """
    classes = labels.tolist()
    near = torch.stack(next_donors(len(classes), max(turns, len(classes) - 1, 1))).T.tolist()
    chosen = []
    for mine, neighbours in zip(classes, near, strict=True):
        others = [at for at in neighbours if classes[at] != mine] or neighbours
        chosen.append([others[turn % len(others)] for turn in range(turns)])
    return list(torch.tensor(chosen, dtype=torch.long).T)


def other_class_donors(labels: Tensor, seed: int) -> Tensor:
    """For each image the position of a donor of another class, `[n]`, drawn with replacement.

    With one class alone, of any image. For a mean over many seeds, as `evidence` takes it; a test
    needs `other_class_pairs`, as images that borrow from one donor err together.
    """
    generator = torch.Generator().manual_seed(seed)
    donors = []
    for label in labels:
        others = torch.nonzero(labels != label).flatten()
        pool = others if len(others) else torch.arange(len(labels))
        donors.append(int(pool[torch.randint(len(pool), (1,), generator=generator)]))
    return torch.tensor(donors)


def other_class_pairs(labels: Tensor, seed: int) -> Tensor:
    """Disjoint pairs of images of two classes, drawn at random, as many as there can be, `[p, 2]`.

    Where each lends the other its background, no pair has a photograph in common with another one:
    what is measured on pairs is independent. With one class alone there are none.
    """
    rng = random.Random(seed)
    left: dict[int, list[int]] = {}
    for position in rng.sample(range(len(labels)), len(labels)):
        left.setdefault(int(labels[position]), []).append(position)
    pairs = []
    while len(left) > 1:
        largest = max(left, key=lambda label: len(left[label]))
        # a class with half of what is left must take part, or some of it finds no partner
        must = 2 * len(left[largest]) >= sum(map(len, left.values()))
        first = largest if must else _drawn(left, rng)
        second = _drawn({label: of for label, of in left.items() if label != first}, rng)
        pairs.append([left[first].pop(), left[second].pop()])
        left = {label: of for label, of in left.items() if of}
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


def _drawn(left: dict[int, list[int]], rng: random.Random) -> int:
    """A class, each as likely as it has images."""
    return rng.choices(list(left), [len(of) for of in left.values()])[0]
