"""A tiny model with images and masks; an ImageNet in miniature."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from refocus.vit import loading
from tests.makers import NAMES, make_images
from tests.studies.makers import miniature


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and images with masks as train/ and test/.

    All studies share one output folder, so runs are done once.
    """
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("study")
    args = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "num_classes": 4,
    }
    config = {"input_size": (3, 32, 32), "crop_pct": 1.0, "label_names": NAMES}
    loading.save(
        timm.create_model("vit_tiny_patch16_224", pretrained_cfg_overlay=config, **args),
        root / "model",
    )
    for part, count, seed in (("train", 12, 0), ("test", 3, 1)):
        images, masks = make_images(root / part, count=count, seed=seed)
        for kind, folder in (("images", images), ("masks", masks)):
            (root / kind).mkdir(exist_ok=True)
            folder.rename(root / kind / part)
    return root


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """An ImageNet in miniature: synsets as folders, a random ViT of 1000 classes as ViT-B."""
    return miniature(tmp_path)
