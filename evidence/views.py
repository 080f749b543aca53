"""What the student of a direction sees of a batch, the images as they are first.

Axes: images `[B, 3, H, W]`, masks `[B, 1, H, W]` -> the same of all views `[count B, ...]`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from evidence.teachers import Course
from refocus.data.swaps import fill_object, next_donors, swap_backgrounds, widened
from refocus.objectives import steps

View = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_SMALLEST = 0.6  # size of an object that is moved, of its own
_FURTHEST = 0.4  # shift of its centre, of half the image


def swaps(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The product's: the images and three background swaps of each."""
    return _seen(images, masks, [_swapped(images, masks, at) for at in donors_of(images)])


def blended(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Each swap has the mean of two donors' backgrounds."""
    donors = donors_of(images)
    pairs = zip(donors, donors[1:] + donors[:1], strict=True)
    views = [(_swapped(images, masks, a) + _swapped(images, masks, b)) / 2 for a, b in pairs]
    return _seen(images, masks, views)


def other_shifts(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """A swap, the own background blurred, and a plain one of its mean colour."""
    if len(images) == 1:
        return images, masks
    own = fill_object(images, widened(masks))
    blurred = F.interpolate(F.avg_pool2d(own, 16, ceil_mode=True), own.shape[-2:], mode="bilinear")
    plain = own.mean((2, 3), keepdim=True).expand_as(own)
    views = [_swapped(images, masks, donors_of(images)[0])]
    views += [masks * images + (1 - masks) * ground for ground in (blurred, plain)]
    return _seen(images, masks, views)


def moved(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Swaps in which the object is 0.6 to 1 of its size and elsewhere."""
    views, where = [images], [masks]
    for at in donors_of(images):
        grid = _affine(images)
        mask = F.grid_sample(masks, grid, align_corners=False)
        there = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        views.append(swap_backgrounds(there, mask, images[at], masks[at]))
        where.append(mask)
    return torch.cat(views), torch.cat(where)


def _affine(images: Tensor) -> Tensor:
    count = len(images)
    size = _SMALLEST + (1 - _SMALLEST) * torch.rand(count)
    shift = _FURTHEST * (2 * torch.rand(count, 2) - 1)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / size
    matrix[:, :, 2] = shift
    return F.affine_grid(matrix.to(images), list(images.shape), align_corners=False)


def gradual(images: Tensor, masks: Tensor, *, course: Course) -> tuple[Tensor, Tensor]:
    """Swaps whose backgrounds come in over the first half of the steps."""
    opacity = min(1.0, 2 * (course.taken + 1) / course.total)
    views = [
        (1 - opacity) * images + opacity * _swapped(images, masks, at) for at in donors_of(images)
    ]
    return _seen(images, masks, views)


def every_swap(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Seven swaps in place of three: each image of a batch lends its background to all others."""
    donors = next_donors(len(images), min(7, len(images) - 1))
    return _seen(images, masks, [_swapped(images, masks, at) for at in donors])


def donors_of(images: Tensor) -> list[Tensor]:
    """Positions of the product's donors, one tensor a swap."""
    return next_donors(len(images), steps.turns(images))


def _swapped(images: Tensor, masks: Tensor, at: Tensor) -> Tensor:
    return swap_backgrounds(images, masks, images[at], masks[at])


def _seen(images: Tensor, masks: Tensor, views: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat([images, *views]), masks.repeat(1 + len(views), 1, 1, 1)
