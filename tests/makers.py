"""What tests of several packages make: folders of images, stimuli, a call of the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus.cli import main

ROOT = Path(__file__).parents[1]
NAMES = ["ant", "bee", "cat", "dog"]


def make_images(
    root: Path, names: list[str] = NAMES, count: int = 6, seed: int = 0
) -> tuple[Path, Path]:
    rng = np.random.default_rng(seed)
    for label, name in enumerate(names):
        for position in range(count):
            image = rng.integers(0, 120, size=(36, 40, 3), dtype=np.uint8)
            mask = np.zeros((36, 40), dtype=np.uint8)
            top, left = rng.integers(2, 16, size=2)
            image[top : top + 16, left : left + 16] = 150 + 30 * label
            mask[top : top + 16, left : left + 16] = 255
            for kind, pixels in (("images", image), ("masks", mask)):
                path = root / kind / name / f"{position}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root / "images", root / "masks"


def stimuli(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name.split("-")[0].rstrip("0123456789") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(path)
    return root


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["refocus", *(str(a) for a in arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as exit_:
        main.main()
    return int(exit_.value.code or 0)
