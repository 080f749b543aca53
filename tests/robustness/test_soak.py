"""Thousands of images: memory stays flat, whatever a command does with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.makers import NAMES
from tests.robustness.dice import LONG
from tests.robustness.door import Door
from tests.robustness.world import tiny_model

pytestmark = pytest.mark.slow
FEW, MANY = (1_000, 10_000) if LONG else (200, 1_600)
GROWTH = 8 << 10  # bytes for each further image: its name and record; its pixels have 16 << 10


def _folder(root: Path, count: int) -> Path:
    """`count` images of 64 x 64 pixels over four classes, no two alike, with masks."""
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    for label, name in enumerate(NAMES):
        for kind in ("images", "masks"):
            (root / kind / name).mkdir(parents=True)
        pixels = rng.integers(0, 120, (64, 64, 3), dtype=np.uint8)
        pixels[16:48, 16:48] = 150 + 30 * label
        Image.fromarray(mask).save(root / "mask.png")
        for number in range(count // len(NAMES)):
            pixels[0, 0] = number % 256, number // 256, label  # copies would be left out
            Image.fromarray(pixels).save(root / "images" / name / f"{number}.png")
            (root / "masks" / name / f"{number}.png").hardlink_to(root / "mask.png")
    return root


COMMANDS = {
    "evaluate": "evaluate --model {model} --on own={images}",
    "masks": "masks {images} --from png {masks}",
    "tune": "tune --model {model} --images {images} --masks {masks} --epochs 1 --shots 4 "
    "--val-images 50 --check-images 50",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_memory_does_not_grow_with_the_number_of_images(
    name: str, door: Door, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "model")
    peaks = {}
    for count in (FEW, MANY):
        root = _folder(tmp_path / str(count), count)
        places = {"model": model, "images": root / "images", "masks": root / "masks"}
        done = door.run(
            *COMMANDS[name].format(**places).split(), "--out", root / "out", timeout=280
        )
        assert done.status == 0, str(done)
        peaks[count] = done.peak
        print(f"{name}, {count} images: {done.peak >> 20} MB, {done.seconds:.0f} s")
    growth = (peaks[MANY] - peaks[FEW]) / (MANY - FEW)
    assert growth < GROWTH, {n: f"{p >> 20} MB" for n, p in peaks.items()}
