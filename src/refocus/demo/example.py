"""A small trained model and a few images with masks, offline: for examples and first tries."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from PIL import Image

from refocus import outputs
from refocus.demo import digits
from refocus.errors import InputError
from refocus.files import replacing
from refocus.vit.loading import load, save


@dataclass(frozen=True)
class Example:
    """What `write` made: a model folder, an ImageFolder, and its masks."""

    model: Path
    images: Path
    masks: Path


def write(folder: str | Path, per_class: int = 4) -> Example:
    """Handwritten digits on photographs, the ViT that was trained to read them, and exact masks.

    Args:
        folder: a new folder; receives `model`, `images/DIGIT/NUMBER.png` and
            `masks/DIGIT/NUMBER.png`.
        per_class: images of each of the ten digits, 40 x 40 pixels.

    Raises:
        InputError: the folder holds something already, or `per_class` is less than 1.

    Examples:
        >>> from refocus.demo.example import write
        >>> example = write("example", per_class=1)
        >>> sorted(path.name for path in example.images.iterdir())[:3]
        ['0', '1', '2']
    """
    if per_class < 1:
        raise InputError(f"per_class {per_class}: must be a whole number of at least 1")
    root = outputs.new_folder(folder)
    labels = np.repeat(np.arange(10), per_class)
    rng = np.random.default_rng(0)
    write_folders(root, labels, *digits.draw(labels, rng, split="test", biased=False, faded=False))
    with as_file(files("refocus").joinpath("assets", "digits")) as trained:
        save(load(trained), root / "model")
    return Example(root / "model", root / "images", root / "masks")


def write_folders(root: Path, labels: np.ndarray, images: np.ndarray, masks: np.ndarray) -> None:
    """Images `[n, H, W, 3]` and masks `[n, H, W]` in [0, 1] as `images/LABEL/NUMBER.png` and so on.

    That is the layout which `refocus tune` and `evaluate` read.
    """
    for position, (label, image, mask) in enumerate(zip(labels, images, masks, strict=True)):
        for kind, pixels in (("images", image), ("masks", mask)):
            path = root / kind / str(label) / f"{position:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                Image.fromarray((255 * pixels).round().astype(np.uint8)).save(partial, "PNG")
