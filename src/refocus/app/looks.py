"""What the app shows, computed without it.

A model's look at one image, an object on another background, a mask for one image.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torchvision import tv_tensors

from refocus.data import composites
from refocus.data.transforms import eval_image, joint_transform
from refocus.errors import InputError
from refocus.evaluation.metrics import background_share
from refocus.figures.pictures import overlay, to_picture
from refocus.masks.backbones import Reader, keys_of, load_backbone
from refocus.masks.discovery import cut, object_mask, shipped_head, spread
from refocus.relevance.gae import explain
from refocus.vit.classes import names_of
from refocus.vit.loading import preprocessing

_TOP = 5
_BLUR = 0.06  # of the shorter side
_SIZE = 392  # at which masks are found, as `refocus masks`


@dataclass(frozen=True)
class Look:
    """One model on one image.

    picture: what it sees, uint8 `[H, W, 3]`. relevance: `[H, W]` in [0, 1] of the class
    `explained`. shares: class -> confidence, best first. inside: share of the relevance on the
    object, None without a mask.
    """

    picture: np.ndarray
    relevance: np.ndarray
    shares: dict[str, float]
    explained: str
    inside: float | None = None


def look(
    model: nn.Module, image: Image.Image, target: str | None = None, mask: Tensor | None = None
) -> Look:
    """What a model makes of an image.

    target: a class by name; None: the predicted one. mask: `[1, H, W]` in [0, 1], of the image's
    size.

    Raises:
        InputError: a class that the model does not know.
    """
    names, config = names_of(model), preprocessing(model)
    if target is not None and target not in names:
        raise InputError(f"class {target!r}: the model does not know it")
    shape = None
    if mask is None:
        pixels = eval_image(model)(image)
    else:
        pixels, shape = joint_transform(model, train=False)(image, tv_tensors.Mask(mask))
    found = explain(
        model,
        pixels[None].to(next(model.parameters()).device),
        None if target is None else names.index(target),
    )
    best = found.logits[0].float().softmax(0).cpu().topk(min(_TOP, len(names)))
    shares = {
        names[i]: share
        for i, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    }
    if target is not None:
        shares[target] = float(found.logits[0].float().softmax(0)[names.index(target)])
    inside = None
    if shape is not None:
        truth = shape.as_subclass(Tensor)
        share = float(background_share(found.patches.cpu(), truth, found.covered)[0])
        inside = None if math.isnan(share) else 1 - share
    picture = to_picture(pixels.as_subclass(Tensor), config["mean"], config["std"])
    return Look(
        picture, found.relevance[0].cpu().numpy(), shares, names[int(found.targets[0])], inside
    )


def drawn(seen: Look, threshold: float, opacity: float) -> np.ndarray:
    """The map over the picture; relevance below `threshold` is not drawn at all."""
    level = np.where(seen.relevance >= threshold, seen.relevance, 0.0)
    shown = overlay(seen.picture, torch.from_numpy(level), opacity)
    return np.where((level > 0)[..., None] | (threshold == 0), shown, seen.picture)


def on_another_background(
    image: Image.Image, mask: Tensor, background: Image.Image | None
) -> Image.Image:
    """The object on another picture, or with None on its own background, blurred."""
    scene = composites.Scene(image, mask)
    if background is None:
        background = scene.ground.filter(ImageFilter.GaussianBlur(_BLUR * min(image.size)))
    return composites.on_background(scene, background)


class Finder:
    """Finds the object in one image, as `refocus masks` does.

    The backbone is loaded when it is first asked.
    """

    def __init__(self, backbone: str) -> None:
        """backbone: as `refocus masks` takes it."""
        self.backbone = backbone
        self._lock = threading.Lock()

    @cached_property
    def _parts(self) -> tuple[nn.Module, Any]:
        return load_backbone(self.backbone), shipped_head(self.backbone)

    def __call__(self, image: Image.Image) -> Tensor:
        """A mask `[1, H, W]` in [0, 1] of the image's size."""
        with self._lock:
            network, head = self._parts
        pixels = Reader(network, _SIZE)(image)
        keys = keys_of(network, pixels)
        mask, _ = object_mask(spread(head(keys), keys) if head else cut(keys), pixels)
        return torch.from_numpy(np.asarray(mask.convert("L"), dtype=np.float32) / 255)[None]
