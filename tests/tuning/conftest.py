"""A recipe for the tiny model and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from refocus import Recipe


@pytest.fixture
def recipe(model_folder: Path, image_folders: tuple[Path, Path]) -> Recipe:
    images, masks = image_folders
    return Recipe(
        model=str(model_folder),
        images=str(images),
        masks=str(masks),
        objective="relevance",
        shots=4,
        epochs=4,
        batch_size=4,
        lr=1e-3,
        device="cpu",
    )
