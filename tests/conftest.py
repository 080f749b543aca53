"""Tiny models and folders that every test can afford.

The real ones lie in ../shared where the project is developed.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from refocus import progress
from refocus.vit import loading
from tests.makers import NAMES, Build, make_images

SHARED = Path(__file__).parents[2] / "shared"
# limits and signals as Unix has them
collect_ignore = ["robustness"] if sys.platform == "win32" else []


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, so that no worker is left with one at the end.

    Tests that share a folder of studies stay on one worker: their runs are done once.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        if "place" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("studies"))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of progress on a machine that is busy; tests of progress set their own patience."""
    monkeypatch.setattr(progress, "PATIENCE", math.inf)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def shared() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip("the real images and models of ../shared are not on this machine")
    return SHARED


@pytest.fixture
def tiny() -> Build:
    """Build a tiny random ViT; keywords are timm's."""

    def build(**changes: object) -> nn.Module:
        args = {
            "img_size": 32,
            "patch_size": 8,
            "embed_dim": 24,
            "depth": 3,
            "num_heads": 3,
            "num_classes": 4,
            **changes,
        }
        side = args["img_size"]
        size = (3, side, side) if isinstance(side, int) else (3, *side)
        config = {
            "input_size": size,
            "crop_pct": 1.0,
            "label_names": NAMES if args["num_classes"] == 4 else None,
        }
        return timm.create_model(
            "vit_tiny_patch16_224", pretrained_cfg_overlay=config, **args
        ).eval()

    return build


@pytest.fixture
def model_folder(tiny: Build, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    loading.save(tiny(), folder)
    return folder


@pytest.fixture
def image_folders(tmp_path: Path) -> tuple[Path, Path]:
    """images/ and masks/ of 4 classes with 6 images of 40 x 36 pixels: a bright square on noise."""
    return make_images(tmp_path / "data")


@pytest.fixture
def two_model_folders(tiny: Build, tmp_path: Path) -> tuple[Path, Path]:
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        loading.save(tiny(), folder)
    return folders
