"""Pixels are those that the source library makes, to within one grey level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from skimage import data
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torchvision import tv_tensors

from refocus.data.transforms import eval_image, joint_transform
from refocus.vit.transformers_models import image_processor, preprocessing

PHOTO = data.astronaut()
PHOTOS = {
    "landscape": Image.fromarray(PHOTO[:301, :455]),
    "portrait": Image.fromarray(PHOTO[:400, 100:333]),
    "smaller than the input": Image.fromarray(PHOTO[100:160, 200:290]),
}
SQUARE = {"height": 64, "width": 64}
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViTImageProcessor": {"size": SQUARE, "resample": 2},
    "SiglipImageProcessor": {"size": SQUARE, "resample": 3},
    "CLIPImageProcessor": {"size": {"shortest_edge": 64}, "crop_size": SQUARE, "resample": 3},
    "BitImageProcessor": {"size": {"shortest_edge": 73}, "crop_size": SQUARE, "resample": 3},
    "DeiTImageProcessor": {"size": {"height": 73, "width": 73}, "crop_size": SQUARE, "resample": 3},
}


def described(config: dict[str, Any]) -> nn.Module:
    model = nn.Linear(1, 1)
    model.pretrained_cfg = config  # type: ignore[assignment]
    return model


def levels_apart(model: nn.Module, ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two normalized images, in grey levels of 255."""
    std = torch.tensor(model.pretrained_cfg["std"])[:, None, None]  # type: ignore[index]
    return float(((ours - theirs) * std * 255).abs().max())


def both_ways(model: nn.Module, photo: Image.Image) -> list[Tensor]:
    """As `evaluate` reads an image, and as `tune` reads it with its mask."""
    mask = tv_tensors.Mask(torch.zeros(1, photo.height, photo.width))
    together, _ = joint_transform(model, train=False)(photo, mask)
    return [eval_image(model)(photo), torch.as_tensor(together)]


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("backend", ["torchvision", "pil"])  # fast and slow
@pytest.mark.parametrize("kind", PROCESSORS)
def test_as_auto_image_processor(kind: str, backend: str, photo: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    getattr(transformers, kind)(**PROCESSORS[kind]).save_pretrained(tmp_path)
    library = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
    assert ("Pil" in type(library).__name__) == (backend == "pil")
    theirs = library(PHOTOS[photo], return_tensors="pt")["pixel_values"][0]
    model = described(preprocessing(image_processor("a folder", str(tmp_path))))
    for ours in both_ways(model, PHOTOS[photo]):
        assert levels_apart(model, ours, theirs) <= 1 + 1e-3


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize(
    "changes",
    [
        {"crop_pct": 0.875, "interpolation": "bilinear"},
        {"crop_pct": 0.9, "interpolation": "bicubic"},
        {"crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "squash"},
        {"crop_pct": 0.95, "input_size": (3, 48, 80)},
    ],
)
def test_as_timms_transform(changes: dict[str, Any], photo: str) -> None:
    size = changes.get("input_size", (3, 64, 64))
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=size[1:],
        depth=1,
        pretrained_cfg_overlay={"input_size": size, **changes},
    )
    theirs = create_transform(**resolve_model_data_config(model), is_training=False)(PHOTOS[photo])
    for ours in both_ways(model, PHOTOS[photo]):
        assert levels_apart(model, ours, theirs) <= 1 + 1e-3
