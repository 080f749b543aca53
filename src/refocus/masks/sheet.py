"""The contact sheet: every mask over its image, worst first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from refocus.data.images import mask_of, read_image
from refocus.figures.html import jpeg_uri, page
from refocus.records import Sample


def contact_sheet(
    records: list[dict[str, Any]], masks: Path, images: Path, *, usable: float
) -> str:
    """One page of what `masks.json` lists (worst first).

    The worst 60 and, for comparison, 12 spread over the rest.
    """
    worst, rest = records[:60], records[60:]
    shown = {
        "The lowest scores": worst,
        "For comparison, spread over the rest": [
            rest[i] for i in np.linspace(0, len(rest) - 1, min(12, len(rest))).astype(int)
        ],
    }
    tiles = {
        title: [{**r, "picture": _masked_tile(Path(r["image"]), masks / r["mask"])} for r in group]
        for title, group in shown.items()
    }
    counts = np.histogram([r["score"] for r in records], bins=10, range=(0, 1))[0].tolist()
    below = sum(r["score"] < usable for r in records)
    return page(
        "masks.html.j2",
        tiles=tiles,
        counts=counts,
        total=len(records),
        below=below,
        usable=usable,
        images=images.name,
    )


def _masked_tile(image: Path, mask: Path, width: int = 220) -> str:
    """An image beside itself with the background dimmed, as a data URI.

    The outline of the mask is drawn in both.
    """
    with Image.open(mask) as shape:
        return _beside(read_image(image), shape.convert("L"), width)


def tile(sample: Sample, width: int = 220) -> str:
    """The same of a sample; one without a mask stands alone."""
    picture = read_image(sample.image)
    if sample.mask is None:
        picture.thumbnail((width, 2 * width))
        return jpeg_uri(picture, quality=80)
    inside = (mask_of(sample, picture)[0].numpy() * 255).astype(np.uint8)
    return _beside(picture, Image.fromarray(inside), width)


def _beside(picture: Image.Image, shape: Image.Image, width: int) -> str:
    size = (width, max(1, min(2 * width, round(width * picture.height / picture.width))))
    pixels = np.asarray(picture.resize(size))
    inside = np.asarray(shape.resize(size)) > 127
    outline = inside ^ binary_erosion(inside, iterations=2)
    halves = [pixels.copy(), np.where(inside[..., None], pixels, pixels // 4)]
    for half in halves:
        half[outline] = (
            255,
            176,
            0,
        )  # amber: apart from most pictures, and for all kinds of colour vision
    return jpeg_uri(Image.fromarray(np.concatenate(halves, axis=1).astype(np.uint8)), quality=80)
