"""A model that knows a folder, and probes that are quick."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from refocus.data.images import read_image
from refocus.data.transforms import eval_image
from refocus.probes import numbers
from refocus.probes.tools import attacks
from refocus.probes.tools.subsets import sufficient_subsets
from refocus.vit import loading
from tests.makers import NAMES, Build, make_images

_KNOWN: dict[str, torch.Tensor] = {}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer classes and rounds for subsets of pixels, fewer steps of the patch attack.

    The rest is the same.
    """
    monkeypatch.setattr(numbers, "RANDOM_CLASSES", 1)
    monkeypatch.setattr(numbers, "sufficient_subsets", partial(sufficient_subsets, rounds=5))
    monkeypatch.setattr(attacks, "PATCH_STEPS", 3)


@pytest.fixture
def knowing(tiny: Build, tmp_path: Path) -> tuple[nn.Module, Path, Path]:
    """A tiny model trained until it knows a folder's classes.

    Their objects differ in brightness.
    """
    images, masks = make_images(tmp_path / "data")
    model = tiny()
    if not _KNOWN:  # once a process: it is the same for every test
        files = sorted(images.glob("*/*.png"))
        pixels = torch.stack([eval_image(model)(read_image(f)) for f in files])
        labels = torch.tensor([NAMES.index(f.parent.name) for f in files])
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(60):
            loss = nn.functional.cross_entropy(model(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert float((model(pixels).argmax(1) == labels).float().mean()) > 0.8
        _KNOWN.update({name: value.clone() for name, value in model.state_dict().items()})
    model.load_state_dict(_KNOWN)
    model.zero_grad()
    return model.eval(), images, masks


@pytest.fixture
def folders(knowing: tuple[nn.Module, Path, Path], tiny: Build, tmp_path: Path) -> dict[str, Path]:
    model, images, masks = knowing
    loading.save(model, tmp_path / "tuned")
    loading.save(tiny(), tmp_path / "original")
    styles = tmp_path / "styles"
    styles.mkdir()
    for number in range(3):
        Image.fromarray(
            np.random.default_rng(number).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        ).save(styles / f"{number}.png")
    return {
        "model": tmp_path / "tuned",
        "against": tmp_path / "original",
        "images": images,
        "masks": masks,
        "styles": styles,
    }
