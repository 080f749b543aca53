"""The contact sheet: every mask over its image, worst first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from refocus.data.images import mask_of, read_image
from refocus.figures.glossary import words
from refocus.figures.html import jpeg_uri, page
from refocus.figures.tables import KeyNumber
from refocus.progress import track
from refocus.records import Sample

APP = "http://127.0.0.1:7860/"  # where `refocus app` listens unless it is told otherwise
_WORST = 60  # masks that are shown for their low scores


def contact_sheet(
    records: list[dict[str, Any]], masks: Path, images: Path, *, usable: float
) -> str:
    """One page of what `masks.json` lists (worst first).

    The worst 60 and, for comparison, 12 spread over the rest.
    """
    worst, rest = records[:_WORST], records[_WORST:]
    shown = {
        "The lowest scores": worst,
        "For comparison, spread over the rest": [
            rest[i] for i in np.linspace(0, len(rest) - 1, min(12, len(rest))).astype(int)
        ],
    }
    tiles = {
        title: [_tile(r, masks, images) for r in track(group, f"contact sheet: {title}".lower())]
        for title, group in shown.items()
    }
    counts = np.histogram([r["score"] for r in records], bins=10, range=(0, 1))[0].tolist()
    below = sum(r["score"] < usable for r in records)
    anchors = (("scores", "Scores"), ("lowest", "Lowest scores"), ("rest", "For comparison"))
    return page(
        "masks.html.j2",
        verdict=_verdict(below, len(records), usable),
        numbers=_numbers(records, below, usable),
        links=[a for a in anchors if a[0] != "rest" or rest] + [("words", "Glossary")],
        tiles=tiles,
        counts=counts,
        usable=usable,
        images=images.name,
        folder=images,
        masks=masks,
        app=APP,
        words=words("mask", "mask score"),
    )


def _verdict(below: int, total: int, usable: float) -> str:
    if not total:
        return "There are no masks to look at"
    if not below:
        return f"All {total} masks have a score of at least {usable}"
    return f"{below} of {total} masks are uncertain: their score is below {usable}"


def _numbers(records: list[dict[str, Any]], below: int, usable: float) -> list[KeyNumber]:
    scores = [r["score"] for r in records]
    middle = f"{np.median(scores):.2f}" if scores else "-"
    return [
        KeyNumber(str(len(records)), "masks"),
        KeyNumber(str(below), f"have a score below {usable}", "refocus tune leaves these out"),
        KeyNumber(middle, "is the median score", "0: uncertain, 1: all agree"),
    ]


def _tile(record: dict[str, Any], masks: Path, images: Path) -> dict[str, Any]:
    image = Path(record["image"])
    name = image.relative_to(images) if image.is_relative_to(images) else Path(image.name)
    picture = _masked_tile(image, masks / record["mask"])
    return {**record, "picture": picture, "name": name.as_posix()}


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
