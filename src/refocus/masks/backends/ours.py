"""Our own masks as a backend, for those that are prompted by them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import nn

from refocus.masks.backbones import Reader, keys_of
from refocus.masks.backends.protocol import Found, enlarged
from refocus.masks.discovery import ObjectHead, cut, soft_mask, spread


@dataclass(frozen=True)
class Ours:
    """backbone, head, size in pixels and refinement as of `finders.discovered`."""

    backbone: nn.Module
    head: ObjectHead
    size: int
    refine: str

    def __call__(self, image: Image.Image, name: str) -> Found:
        """The head's mask; beside it the image's own cut."""
        pixels = Reader(self.backbone, self.size)(image)
        keys = keys_of(self.backbone, pixels)
        found = spread(self.head(keys), keys)
        soft = torch.from_numpy(soft_mask(found, pixels, refine=self.refine))
        own = enlarged(torch.from_numpy(cut(keys)), image.size) > 0.5
        return Found(enlarged(soft, image.size), own)
