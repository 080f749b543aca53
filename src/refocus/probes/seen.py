"""What a model sees of images and masks, as a batch of pixels in [0, 1]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from refocus.data.images import mask_of, read_image
from refocus.data.transforms import eval_image, joint_transform
from refocus.probes.batch import Batch, seeds_of
from refocus.probes.material import Material
from refocus.records import Sample
from refocus.vit.loading import preprocessing

_COLOURS = 3


class Loader:
    """Reads a sample: `[3, H, W]`, or `[4, H, W]` with the mask last, normalized for the model."""

    def __init__(self, model: nn.Module, *, with_mask: bool) -> None:
        self.with_mask = with_mask
        self.transform: Any = (
            joint_transform(model, train=False) if with_mask else eval_image(model)
        )

    def __call__(self, sample: Sample) -> Tensor:
        """What the model sees of it, and its mask where one is needed."""
        image = read_image(sample.image)
        if not self.with_mask:
            return self._plain(self.transform(image))
        assert sample.mask is not None
        pixels, mask = self.transform(image, tv_tensors.Mask(mask_of(sample, image)))
        return torch.cat([self._plain(part) for part in (pixels, mask.to(pixels.dtype))])

    def _plain(self, part: Any) -> Tensor:
        found: Tensor = part.as_subclass(Tensor)
        return found


def batch_of(
    model: nn.Module, samples: list[Sample], seen: Tensor, root: Path, material: Material
) -> Batch:
    """A batch of what `Loader` read, on the model's device; seen: `[B, 3 or 4, H, W]`."""
    device, config = next(model.parameters()).device, preprocessing(model)
    mean, std = (torch.tensor(config[key]).view(_COLOURS, 1, 1) for key in ("mean", "std"))
    pixels = (seen[:, :_COLOURS] * std + mean).clamp(0, 1).to(device)
    masks = seen[:, _COLOURS:].to(device) if seen.shape[1] > _COLOURS else None
    labels = torch.tensor([s.label for s in samples], device=device)
    seeds = seeds_of(samples, root, material.settings.seed)
    return Batch(model, pixels, labels, seeds, samples, root, material.options, masks)
