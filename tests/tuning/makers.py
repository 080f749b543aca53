"""What tests of tuning make: recipes, and the weights of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from refocus import Recipe


def quick_recipe(model: Path, folders: tuple[Path, Path], **changes: Any) -> Recipe:
    images, masks = folders
    common: dict[str, Any] = {
        "objective": "relevance",
        "epochs": 2,
        "lr": 1e-3,
        "shots": 2,
        "device": "cpu",
        "do_no_harm": False,
    }
    return Recipe(model=str(model), images=str(images), masks=str(masks), **{**common, **changes})


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "best.safetensors")


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    """Weights after the last epoch.

    The best one may lie before an interruption, and would be equal whatever the resumed epochs did.
    """
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
