"""Distribution shifts made from images and their masks. So far: the background swap.

Axes: images `[B, 3, H, W]`, masks `[B, 1, H, W]` in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# a pixel counts as background only where the mask is below this: soft object edges must not leak
_SURE = 0.05


def fill_object(images: Tensor, masks: Tensor) -> Tensor:
    """Replace the object by what surrounds it: normalized averages at halved and halved resolution
    (push-pull).

    Background pixels stay as they are; a hole takes the mean of the nearest scale at which it sees
    background.
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


def swap_backgrounds(images: Tensor, masks: Tensor, donors: Tensor, donor_masks: Tensor) -> Tensor:
    """Each object on a donor's background, the donor's own object filled in ("mixed" in Xiao et
    al., ICLR 2021).
    """
    return masks * images + (1 - masks) * fill_object(donors, donor_masks)


def other_class_donors(labels: Tensor, seed: int) -> Tensor:
    """For each image the position of a donor of another class, `[n]`; with one class alone, of any
    image.
    """
    generator = torch.Generator().manual_seed(seed)
    donors = []
    for label in labels:
        others = torch.nonzero(labels != label).flatten()
        pool = others if len(others) else torch.arange(len(labels))
        donors.append(int(pool[torch.randint(len(pool), (1,), generator=generator)]))
    return torch.tensor(donors)
