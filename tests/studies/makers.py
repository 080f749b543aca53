"""Options of a study that is over in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo
from typer.testing import CliRunner

from refocus.vit import loading
from tests.makers import make_images

RUN = CliRunner()


def options(root: Path, *more: str) -> list[str]:
    base = [
        "--on",
        root / "images",
        "--model",
        root / "model",
        "--masks",
        root / "masks",
        "--automatic-masks",
        root / "masks",
    ]
    base += [
        "--out",
        root / "out",
        "--epochs",
        "1",
        "--most",
        "4",
        "--maps",
        "4",
        "--device",
        "cpu",
    ]
    return [*map(str, base), *more]


def miniature(root: Path, *, classes: int = 4, masked: int = 4, count: int = 4) -> Path:
    """An ImageNet in miniature: synsets as folders, a random ViT of 1000 classes as ViT-B.

    The first `masked` classes have masks, `count` images each. Returns the TOML file of the sets.
    """
    torch.manual_seed(0)
    synsets = ImageNetInfo("imagenet-1k").label_names()[:classes]
    for part, images_of_class in (("train", count), ("imagenet", 2)):
        images, masks = make_images(root / part, synsets, count=images_of_class)
        images.rename(root / f"{part}-images")
        masks.rename(root / f"{part}-masks")
    for name in synsets[masked:]:
        shutil.rmtree(root / "train-masks" / name)
    args: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "num_classes": 1000,
    }
    config = {"input_size": (3, 32, 32), "crop_pct": 1.0}
    loading.save(
        timm.create_model("vit_tiny_patch16_224", pretrained_cfg_overlay=config, **args),
        root / "vit",
    )
    file = root / "data.toml"
    file.write_text(
        '[train]\nimages = "train-images"\nannotated = "train-masks"\n'
        '[suites]\nimagenet = "imagenet-images"\nimagenet-a = "nowhere"\n'
        f'[models]\nViT-B = "{root / "vit"}"\n'
    )
    return file


def only_imagenet(toml: Path) -> Path:
    """Without the set that is named and not there."""
    toml.write_text(toml.read_text().replace('imagenet-a = "nowhere"\n', ""))
    return toml
