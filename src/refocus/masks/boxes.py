"""Masks from boxes: a table of corners, Pascal VOC's XML; a box that cannot be is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from refocus.data.images import UNREADABLE
from refocus.data.sources.rows import COLUMNS
from refocus.data.tables import head_of, number, read_table
from refocus.errors import InputError, first_line
from refocus.masks.joins import Join, files_below
from refocus.masks.reading import Labels, MaskReader, Size, checked_size
from refocus.vit.classes import plain

Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels from 0, the end outside
_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
ASK, CORNERS = "ask", "corners"  # what a box's numbers are: as the file tells, corners in pixels
_SHARES = 1.5
_PERCENTS = 101  # of an image, rounded
_FEW, _SMALL = 5, 200  # objects, pixels of a side: fewer and smaller ones end below 100 by chance
_LARGE = 1 << 22  # bytes; an annotation has a few thousand


def boxes(source: Path, images: Sequence[Path] = (), kind: str = ASK) -> MaskReader:
    """A CSV file with the columns image,xmin,ymin,xmax,ymax, and perhaps one of classes.

    In pixels from 0, the right and lower edge outside; several rows for an image add up. image is a
    path, of which as much counts as there is. Boxes of the class named like the image's class
    folder count, or all where no row has that class. kind: "corners" where the numbers are pixels
    although they could be percents, which else is asked.
    """
    shown = f"‹source› boxes {source}"
    named = [name for name in head_of(source, shown) if name in COLUMNS["label"]]
    if len(named) > 1:
        raise InputError(
            f"{shown}: the columns {' and '.join(named)} could both be the class; keep one of them"
        )
    found: dict[str, list[tuple[str, Corners]]] = defaultdict(list)
    for row in read_table(source, ("image", *_COLUMNS), shown, optional=named):
        x0, y0, x1, y1 = (number(row[c], f"{shown}: {c} of {row['image']}") for c in _COLUMNS)
        found[row["image"]].append((row[named[0]] if named else "", (x0, y0, x1, y1)))
    join = Join(found, images)
    labels = Labels(label for rows in found.values() for label, _ in rows)
    if kind == ASK:
        outlines = (Outline(name, box, box[2:]) for name, rows in found.items() for _, box in rows)
        refuse_percents(outlines, sizes_of(join, images), shown, f"‹boxes={CORNERS}›")

    def read(image: Path, size: Size) -> np.ndarray | None:
        name = join(image)
        if name is None:
            return None
        wanted = labels.of(image.parent.name)
        corners = [box for label, box in found[name] if label in wanted or not wanted]
        if not corners:
            raise InputError(f"{source}: {name} has no object called {image.parent.name}")
        return rectangles(corners, size, f"{source.name}: {name}")

    return MaskReader(read)


def voc_boxes(source: Path, images: Sequence[Path] = (), kind: str = ASK) -> MaskReader:
    """Pascal VOC or ImageNet annotations: a folder of XML files, each box a rectangle.

    Both corners belong to the box. Objects named like the image's class folder count, or all where
    no file knows such a class. kind: "corners" where the numbers are pixels although they could be
    percents, which else is asked.
    """
    files = files_below(source, (".xml",))
    join = Join(files, images)
    if kind == ASK:
        own = sizes_of(join, images)
        refuse_percents(
            _outlines(files),
            lambda name: _said_size(files[name]) or own(name),
            f"‹source› voc-boxes {source}",
            f"‹boxes={CORNERS}›",
        )

    @cache
    def labels() -> Labels:  # asked of images without their class, so that most need not wait
        return Labels(_name(o) for file in files.values() for o in _objects(file, lenient=True))

    def size(image: Path) -> Size | None:
        name = join(image)
        return None if name is None else _said_size(files[name])

    def read(image: Path, size: Size) -> np.ndarray | None:
        name = join(image)
        if name is None:
            return None
        file, folder = files[name], image.parent.name
        if (said := _said_size(file)) not in (None, tuple(size)):
            raise InputError(
                f"{image}: is {size[0]}x{size[1]} pixels, {file} says {said[0]}x{said[1]}"
            )
        objects = _objects(file)
        mine = [o for o in objects if plain(_name(o)) == plain(folder)]
        if not mine and (wanted := labels().of(folder)):
            mine = [o for o in objects if _name(o) in wanted]
            if not mine:
                raise InputError(f"{file}: has no object called {folder}")
        corners = [_corners(o, file) for o in mine or objects]
        return rectangles([c for c in corners if c], size, str(file)) if corners else None

    return MaskReader(read, size)


def _name(thing: Any) -> str:
    return str(thing.findtext("name", "")).strip()


def _root(file: Path) -> Any:
    try:
        if file.stat().st_size > _LARGE:
            raise ValueError("larger than any annotation")
        return ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, ValueError, RecursionError, LookupError) as error:
        raise InputError(f"{file}: not a Pascal VOC annotation ({first_line(error)})") from error


def _said_size(file: Path) -> Size | None:
    """The size that an annotation states; some tools write 0."""
    said = _root(file).find("size")
    return None if said is None else checked_size(said.findtext("width"), said.findtext("height"))


def _objects(file: Path, *, lenient: bool = False) -> list[Any]:
    try:
        return list(_root(file).findall("object"))
    except InputError:
        if lenient:
            return []
        raise


def _corners(thing: Any, file: Path) -> Corners | None:
    box = thing.find("bndbox")
    if box is None:
        return None
    x0, y0, x1, y1 = (number(box.findtext(tag, ""), f"{file}: {tag}") for tag in _COLUMNS)
    return x0 - 1, y0 - 1, x1, y1  # VOC counts from 1


def _outlines(files: Mapping[str, Path]) -> Iterator[Outline]:
    """Every box; what cannot be read is said where it is."""
    for name, file in files.items():
        for thing in _objects(file, lenient=True):
            with suppress(InputError):
                if box := _corners(thing, file):
                    yield Outline(name, box, box[2:])


class Outline(NamedTuple):
    """An object of an image: the numbers that a file gives, and x, y where it ends."""

    image: str
    numbers: Sequence[float]
    end: Sequence[float]


def sizes_of(join: Join, images: Sequence[Path]) -> Callable[[str], Size | None]:
    """Entry -> size of its image's file; None where it has none that can be read."""

    @cache
    def files() -> dict[str, Path]:
        found = {}
        for image in images:
            with suppress(InputError):  # several could be meant
                if name := join(image):
                    found[name] = image
        return found

    @cache
    def size(name: str) -> Size | None:
        try:
            with Image.open(files()[name]) as opened:
                return opened.size
        except (KeyError, *UNREADABLE):
            return None

    return size


def refuse_percents(
    outlines: Iterable[Outline], size_of: Callable[[str], Size | None], shown: str, pixels: str
) -> None:
    """Stop where all numbers of a file could be percents of its images, none of which is small.

    Read as pixels they would then all lie in a corner of them.

    pixels: what to give where they are pixels.

    Raises:
        InputError: names `shown` and `pixels`.
    """
    found: list[Outline] = []
    for outline in outlines:
        if not all(number <= _PERCENTS for number in outline.numbers):
            return
        found.append(outline)
    if max((max(o.numbers) for o in found), default=0) <= _SHARES:  # said of each box
        return
    sizes: list[Size] = []
    for outline in found:
        if (size := size_of(outline.image)) is None:
            continue
        ends = zip(outline.end, size, strict=True)
        if min(size) <= _SMALL or any(end > max(_PERCENTS, side / 2) for end, side in ends):
            return
        sizes.append(size)
    if len(sizes) >= _FEW:
        width, height = max(sizes)
        raise InputError(
            f"{shown}: no number of its {len(found)} objects is above {_PERCENTS}, in images up to "
            f"{width}x{height}, as if they were percents; must be in pixels. Give {pixels} if they "
            "are"
        )


def in_shares(values: Sequence[float], size: Size) -> bool:
    """Whether coordinates seem to be shares of an image rather than pixels.

    Up to 1.5: a box that begins with its centre ends there where it is read from a corner.
    """
    return max(map(abs, values)) <= _SHARES < min(size)


def rectangles(corners: Sequence[Corners], size: Size, shown: str) -> np.ndarray:
    """Boxes as a mask bool `[H, W]`, clipped to the image.

    Raises:
        InputError: a box in shares of the image, with exchanged corners, or outside of the image.
    """
    width, height = size
    mask = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in corners:
        box = f"({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if in_shares((x0, y0, x1, y1), size):
            raise InputError(f"{shown}: box {box} is in fractions from 0 to 1; must be in pixels")
        if x1 <= x0 or y1 <= y0:
            raise InputError(f"{shown}: box {box} ends before it begins; must name the upper "
                             "left corner first")  # fmt: skip
        if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            raise InputError(f"{shown}: box {box} lies outside of the image, {width}x{height}")
        left, top = (round(max(v, 0)) for v in (x0, y0))
        right, bottom = (round(min(v, end)) for v, end in ((x1, width), (y1, height)))
        mask[top:bottom, left:right] = True
    return mask
