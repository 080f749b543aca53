"""What becomes of the answer when the image is turned, shifted or cut into other patches."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from refocus.probes.batch import Batch, Series, Views
from refocus.probes.results import Level
from refocus.probes.tools import perturbations as change
from refocus.probes.tools.resizing import on_grid, patch_of, with_patches
from refocus.vit.loading import preprocessing

TURNS = (0, 5, 10, 15, 30, 45, 90, 180)  # degrees
SHIFTS = (0, 0.02, 0.05, 0.1, 0.2, 0.3)  # of the sides
_FACTORS = (0.5, 0.75, 1.5, 2)  # of the model's own patch


def turns(b: Batch) -> Views:
    """The image turned to either side; what is missing at the edges is mirrored."""
    side = change.signs(b.seeds)
    for degrees in TURNS:
        yield "turned", change.turn(b.pixels, degrees * side) if degrees else b.pixels


def shifts(b: Batch) -> Views:
    """The image shifted in a random direction; what is missing at the edges is mirrored."""
    way = change.directions(b.seeds)
    for share in SHIFTS:
        yield "shifted", change.shift(b.pixels, share * way) if share else b.pixels


def patch_sizes(model: nn.Module) -> list[Level]:
    """Levels of `patches`: the model's own patch, then smaller and larger ones."""
    own, *others = (height for height, _ in _patches(model))
    return [f"{own} (its own)", *map(str, others)]


def _patches(model: nn.Module) -> list[tuple[int, int]]:
    """Sizes of patches that are tried, the model's own first."""
    own = patch_of(model)
    scaled = [(round(f * own[0]), round(f * own[1])) for f in _FACTORS]
    return [own, *(size for size in dict.fromkeys(scaled) if size != own and min(size) > 0)]


def patches(b: Batch) -> Series:
    """Top-1 on the same images in patches of other sizes.

    Kernel and positions are resampled, nothing is trained. The kernel sees pixels minus the model's
    mean, and a resampled one does not keep a constant, so the mean is taken off before.
    """
    own, *others = _patches(b.model)
    pixels = b.pixels[..., : b.covered[0], : b.covered[1]]  # what the model's own patches see
    mean = torch.tensor(preprocessing(b.model)["mean"]).view(3, 1, 1).to(b.pixels)
    rows: list[Tensor] = [b.clean]
    for size in others:
        seen = with_patches(pixels - mean, own, size) + mean
        grid = (seen.shape[-2] // own[0], seen.shape[-1] // own[1])
        rows.append(replace(b, model=on_grid(b.model, grid), pixels=seen).clean)
    return {"resampled": torch.stack(rows, dim=1)}


def patches_can_change(model: nn.Module) -> None:
    """Refuse a model whose positions cannot be resampled."""
    height, width = patch_of(model)
    on_grid(model, (2, 2) if height == width else (2, 1))
