"""Shapes that annotation tools export, drawn as masks. Imports no tool."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.draw import polygon2mask

from refocus.errors import InputError
from refocus.masks.boxes import in_shares
from refocus.masks.joins import Join
from refocus.masks.reading import Labels, MaskReader, Size

_CORNERS = 100_000  # of one polygon


@dataclass(frozen=True)
class Shape:
    """One object: its label, "" where it has none, and size of the image -> bool `[H, W]`."""

    label: str
    draw: Callable[[Size], np.ndarray]


@dataclass(frozen=True)
class Annotated:
    """An image of an export: its objects, and its size where the export says it.

    problem: why it cannot be used; empty where it can. lines: labels of what encloses no area, such
    as points and lines: an object of that label is known, but not where it ends.
    """

    shapes: Sequence[Shape]
    size: Size | None = None
    problem: str = ""
    lines: Sequence[str] = ()


def shapes_reader(
    entries: Mapping[str, Annotated], source: Path, images: Sequence[Path]
) -> MaskReader:
    """A reader of an export, by name of the image.

    Objects of the label named like the image's class folder count, or all where no object of the
    export has that label.
    """
    join = Join(entries, images)
    every = entries.values()
    labels = Labels(name for e in every for name in (*(s.label for s in e.shapes), *e.lines))

    def size(image: Path) -> Size | None:
        name = join(image)
        return None if name is None else entries[name].size

    def read(image: Path, size: Size) -> np.ndarray | None:
        name = join(image)
        if name is None:
            return None
        entry = entries[name]
        if entry.problem:
            raise InputError(entry.problem)
        if entry.size not in (None, tuple(size)):
            raise InputError(
                f"{image}: is {size[0]}x{size[1]} pixels, {source.name} says "
                f"{entry.size[0]}x{entry.size[1]}"
            )
        wanted = labels.of(image.parent.name)
        mine = [s for s in entry.shapes if s.label in wanted]
        if not mine and wanted:
            what = "only points or lines" if wanted & set(entry.lines) else "no object"
            raise InputError(f"{source}: {name} has {what} called {image.parent.name}")
        mask: np.ndarray = np.zeros(size[::-1], bool)
        for shape in mine or entry.shapes:
            mask = mask | shape.draw(size)
        return mask if entry.shapes else None

    return MaskReader(read, size)


def add(entries: dict[str, Annotated], name: str, entry: Annotated, shown: str) -> None:
    """Put in an image of an export; of two that are called alike neither is taken for the other."""
    if name in entries:
        entry = Annotated((), problem=f"{shown}: holds {name} twice; must hold each image once")
    entries[name] = entry


def polygon(corners: Sequence[tuple[float, float]], shown: str) -> Callable[[Size], np.ndarray]:
    """A polygon of corners x, y in pixels.

    Raises:
        InputError: fewer than three corners, too many, or numbers that are not finite; when it is
            drawn, corners in shares from 0 to 1 or far outside of the image.
    """
    if not 3 <= len(corners) <= _CORNERS:
        raise InputError(f"{shown}: a polygon of {len(corners)} corners; must have 3 or more")
    if not all(math.isfinite(v) for corner in corners for v in corner):
        raise InputError(f"{shown}: a corner is not finite; must be in pixels")

    def draw(size: Size) -> np.ndarray:
        width, height = size
        if in_shares([v for corner in corners for v in corner], size):
            raise InputError(f"{shown}: its polygon is in fractions from 0 to 1; must be in pixels")
        for x, y in corners:
            if not (-width <= x <= 2 * width and -height <= y <= 2 * height):
                raise InputError(
                    f"{shown}: a corner at {x:g}, {y:g} lies far outside of the image, "
                    f"{width}x{height}"
                )
        # pixel centres, where the tools count from the corner of the first pixel
        rows = np.array([(y - 0.5, x - 0.5) for x, y in corners])
        return np.asarray(polygon2mask((height, width), rows), bool)

    return draw
