"""Masks from COCO's instances JSON. Numbers are checked before any of them reaches C code.

A box is x, y, width, height, from its upper left corner. Some tools write x, y of two corners under
the same name, others the centre in place of the corner (as YOLO has it).
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refocus.data.sources.annotated import refuse_doubled
from refocus.errors import InputError, Message, first_line
from refocus.files import read_json
from refocus.masks.boxes import (
    ASK,
    CORNERS,
    Outline,
    in_shares,
    rectangles,
    refuse_percents,
    sizes_of,
)
from refocus.masks.joins import Join
from refocus.masks.reading import Labels, MaskReader, Size

log = logging.getLogger("refocus")

_MOST = 1 << 31  # bytes; COCO's own files have 450 MB
_CORNERS = 100_000  # of one polygon
_POINTS = 3  # which enclose something
_BEYOND = 2  # pixels by which tools let a box end outside of its image
_MOST_FIT, _SOME = 0.95, 0.1  # of boxes: a few of a file are wrong in any case
_Box = tuple[float, float, float, float]
SIZE, CENTERS = "xywh", "centers"
BOXES = (ASK, SIZE, CORNERS, CENTERS)
_WORDS = {
    CORNERS: "two corners, x, y and x, y",
    CENTERS: "centre x, centre y, width, height, as YOLO has them",
}


def coco(source: Path, images: Sequence[Path] = (), boxes: str = ASK) -> MaskReader:
    """COCO instances JSON: polygons and RLE, or the box where there is no segmentation.

    RLE compressed or not. Objects of the category named like the image's class folder, or all where
    there is no such category; crowds count. boxes: what a box's numbers are: its upper left corner
    and its size (xywh, as COCO has it), two corners (corners), its centre and its size (centers),
    or as the whole file tells (ask).
    """
    try:
        from pycocotools import mask as rle
    except ImportError as error:
        raise InputError(
            "‹source› coco: pycocotools is not installed; run `pip install refocus-vit[coco]`"
        ) from error
    categories, sizes, objects, doubled = _content(source)
    join = Join(sizes, images)  # of images without objects too: their names are not others'
    if boxes == ASK:
        own = sizes_of(join, images)
        refuse_percents(
            _outlines(objects),
            lambda name: sizes[name] or own(name),
            f"‹source› coco {source}",
            f"‹boxes={SIZE}› (COCO's), ‹boxes={CORNERS}› or ‹boxes={CENTERS}›",
        )
        _refuse_doubtful(objects, sizes, source)
    labels = Labels(categories.values())

    def size(image: Path) -> Size | None:
        name = join(image)
        return None if name is None else sizes[name]

    def read(image: Path, size: Size) -> np.ndarray | None:
        name = join(image)
        if name is None or name not in objects:
            return None
        if name in doubled:
            raise InputError(
                f"{source}: two images have the file_name {name}; must have a path that tells them "
                "apart"
            )
        if sizes[name] not in (None, tuple(size)):
            raise InputError(
                f"{image}: is {size[0]}x{size[1]} pixels, {source.name} says "
                f"{sizes[name][0]}x{sizes[name][1]}"
            )
        mask: np.ndarray = np.zeros(size[::-1], bool)
        for annotation in _of_class(objects[name], categories, image, labels):
            shown = f"{source}: annotation {annotation.get('id')} of {name}"
            mask = mask | _object(annotation, size, rle, shown, boxes)
        return mask

    return MaskReader(read, size)


def _content(
    source: Path,
) -> tuple[dict[str, str], dict[str, Any], dict[str, list[dict[str, Any]]], set[str]]:
    """Category -> name; file -> size, where it is said; file -> its annotations; doubled files.

    Numbers and texts count alike as ids.
    """
    content = read_json(source, most=_MOST)
    refuse_doubled(content, f"‹source› coco {source}")
    try:
        categories = {str(c["id"]): str(c["name"]) for c in content.get("categories", [])}
        files = {str(i["id"]): str(i["file_name"]) for i in content["images"]}
        sizes = {
            str(i["file_name"]): None if i.get("width") is None else _said_size(i)
            for i in content["images"]
        }
        objects: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            if (number := str(annotation["image_id"])) not in files:
                raise InputError(
                    f"‹source› coco {source}: annotation {annotation.get('id')} is of image "
                    f"{number}, which it does not list"
                )
            objects[files[number]].append(dict(annotation))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"‹source› coco {source}: not a COCO instances file ({error!r})"
        ) from error
    doubled = {name for name, count in Counter(files.values()).items() if count > 1}
    return categories, sizes, objects, doubled


def _said_size(image: dict[str, Any]) -> Size:
    return int(image["width"]), int(image["height"])


def _of_class(
    objects: list[dict[str, Any]], categories: dict[str, str], image: Path, labels: Labels
) -> list[dict[str, Any]]:
    """The objects of the image's class, or all where no category is called so."""
    folder = image.parent.name
    if not (wanted := labels.of(folder)):
        return objects
    mine = [o for o in objects if categories.get(str(o.get("category_id"))) in wanted]
    if not mine:
        others = sorted({categories.get(str(o.get("category_id")), "?") for o in objects})
        raise InputError(f"{image}: has no object of its class {folder}, but {', '.join(others)}")
    return mine


def _object(annotation: dict[str, Any], size: Size, rle: Any, shown: str, boxes: str) -> np.ndarray:
    try:
        mask = _shape(annotation, size, rle, shown, boxes)
    except InputError:
        raise
    except Exception as error:  # pycocotools raises bare Exceptions
        raise InputError(f"{shown} cannot be read ({first_line(error)})") from error
    if not mask.any():
        raise InputError(f"{shown} encloses no pixel of the image")
    return mask


def _shape(annotation: dict[str, Any], size: Size, rle: Any, shown: str, boxes: str) -> np.ndarray:
    width, height = size
    shape = annotation.get("segmentation")
    if isinstance(shape, dict):
        return run_lengths(shape, size, shown)
    polygons = _polygons(shape)
    if not polygons:
        x, y, w, h = _numbers(annotation["bbox"], shown)
        return rectangles([_corners((x, y, w, h), boxes)], size, shown)
    checked = [_polygon(p, size, shown) for p in polygons]
    return np.asarray(rle.decode(rle.merge(rle.frPyObjects(checked, height, width)))).astype(bool)


def _corners(box: _Box, boxes: str) -> _Box:
    """x, y of the upper left and of the lower right corner."""
    x, y, w, h = box
    if boxes == CORNERS:
        return box
    left, top = (x - w / 2, y - h / 2) if boxes == CENTERS else (x, y)
    return left, top, left + w, top + h


def _polygons(shape: Any) -> list[Any]:
    """Polygons of a segmentation, those of fewer than three points, which enclose nothing, aside.

    One polygon may stand without its list, and points may be pairs.
    """
    polygons = [shape] if shape and not isinstance(shape[0], list) else shape or []
    if len(polygons) >= _POINTS and all(isinstance(p, list) and len(p) == 2 for p in polygons):
        polygons = [polygons]
    flat = [[v for pair in p for v in pair] if isinstance(p[0], list) else p for p in polygons if p]
    return [p for p in flat if len(p) >= 2 * _POINTS]


def _refuse_doubtful(
    objects: Mapping[str, Sequence[Mapping[str, Any]]], sizes: Mapping[str, Any], source: Path
) -> None:
    """Stop where boxes seem to be two corners or to begin with their centre.

    They could be, and read as COCO has them some do not fit. Where all could be corners and nothing
    speaks against either, they are read as COCO has them, with a notice.

    Raises:
        InputError: asks what they are.
    """
    found = [
        (box, annotation.get("area"), sizes[name])
        for name, annotations in objects.items()
        for annotation in annotations
        if (box := _box_alone(annotation)) is not None
    ]
    could = {
        CORNERS: [_could_be_corners(box, size) for box, _, size in found],
        CENTERS: [_could_be_centered(box, size) for box, _, size in found],
    }
    wrong = {
        CORNERS: [box for box, area, size in found if _is_beyond(box, area, size)],
        CENTERS: [box for box, _, size in found if _leaves(box, size)],
    }
    doubtful = [
        boxes
        for boxes, fit in could.items()
        if (beyond := wrong[boxes])
        and (all(fit) or (sum(fit) > _MOST_FIT * len(fit) and len(beyond) > _SOME * len(fit)))
    ]
    if doubtful:
        beyond = wrong[doubtful[0]]
        others = " or ".join(f"{sum(could[each])} {_WORDS[each]}" for each in doubtful)
        options = " or ".join(f"‹boxes={each}›" for each in doubtful)
        raise InputError(
            f"‹source› coco {source}: read as x, y, width, height, {len(beyond)} of {len(found)} "
            f"boxes, such as {[*beyond[0]]}, extend beyond their image or have another area than "
            f"the file states; could be: {others}. Give {options} if they are, ‹boxes=xywh› if "
            "they follow COCO"
        )
    if found and all(could[CORNERS]) and not all(_has_area(box, area) for box, area, _ in found):
        log.info(
            Message(
                "boxes of %s are read as x, y, width, height, but all could be corners, x, y and "
                "x, y: look at the masks, and give ‹boxes=corners› if they are"
            ),
            source.name,
        )


def _outlines(objects: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Outline]:
    """Boxes and polygons as they are read; run lengths are of pixels in any case."""
    for name, annotation in ((name, one) for name, mine in objects.items() for one in mine):
        if (box := _box_alone(annotation)) is not None:
            yield Outline(name, box, _corners(box, SIZE)[2:])
        elif corners := _drawn(annotation):
            yield Outline(name, corners, (max(corners[::2]), max(corners[1::2])))


def _drawn(annotation: Mapping[str, Any]) -> list[float]:
    """x, y, x, y, ... of an object's polygons; what is no polygon is said where it is read."""
    shape = annotation.get("segmentation")
    try:
        polygons = [] if isinstance(shape, dict) else _polygons(shape)
        return [float(v) for p in polygons for v in p[: len(p) // 2 * 2]]
    except (KeyError, TypeError, ValueError, OverflowError):
        return []


def _box_alone(annotation: Mapping[str, Any]) -> _Box | None:
    """The box of an object that has nothing else; what is no box is said where it is read."""
    shape = annotation.get("segmentation")
    try:
        if isinstance(shape, dict) or _polygons(shape):
            return None
        x, y, w, h = (float(value) for value in annotation["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return x, y, w, h


def _could_be_corners(box: _Box, size: Size | None) -> bool:
    x0, y0, x1, y1 = box
    inside = size is None or (x1 <= size[0] + _BEYOND and y1 <= size[1] + _BEYOND)
    return 0 <= x0 < x1 and 0 <= y0 < y1 and inside


def _could_be_centered(box: _Box, size: Size | None) -> bool:
    """Whether a box with its centre at x, y lies in its image; False where its size is not said."""
    if size is None:
        return False
    x0, y0, x1, y1 = _corners(box, CENTERS)
    fits = min(x0, y0) >= -_BEYOND and x1 <= size[0] + _BEYOND and y1 <= size[1] + _BEYOND
    return x0 < x1 and y0 < y1 and fits


def _leaves(box: _Box, size: Size | None) -> bool:
    """Whether a box x, y, width, height ends outside of its image."""
    x, y, w, h = box
    return size is not None and (x + w > size[0] + _BEYOND or y + h > size[1] + _BEYOND)


def _is_beyond(box: _Box, area: Any, size: Size | None) -> bool:
    """Whether a box cannot be x, y, width, height: it leaves the image, or has another area."""
    x, y, w, h = box
    return _leaves(box, size) or (
        _has_area((0, 0, w - x, h - y), area) and not _has_area(box, area)
    )


def _has_area(box: _Box, area: Any) -> bool:
    """Whether the area that a file states is that of a box x, y, width, height."""
    stated = isinstance(area, int | float) and area > 0
    return stated and math.isclose(box[2] * box[3], area, rel_tol=0.01)


def _numbers(values: Any, shown: str) -> list[float]:
    found = [float(v) for v in values]
    if not all(math.isfinite(v) for v in found):
        raise InputError(f"{shown}: has a number that is not finite; must be in pixels")
    return found


def _polygon(values: Any, size: Size, shown: str) -> list[float]:
    """Corners x, y, x, y, ... in pixels, at most one image away from the image.

    Raises:
        InputError: shares of the image, too many corners, or corners far outside.
    """
    found = _numbers(values, shown)
    if len(found) % 2 or len(found) > 2 * _CORNERS:
        raise InputError(f"{shown}: a polygon of {len(found)} numbers; must be pairs x, y")
    if in_shares(found, size):
        raise InputError(f"{shown}: its polygon is in fractions from 0 to 1; must be in pixels")
    for position, value in enumerate(found):
        side = size[position % 2]
        if not -side <= value <= 2 * side:
            raise InputError(
                f"{shown}: a corner at {value:g} lies far outside of the image, {size[0]}x{size[1]}"
            )
    return found


def run_lengths(shape: dict[str, Any], size: Size, shown: str) -> np.ndarray:
    """Run lengths, column by column and background first, compressed into a text or not."""
    width, height = size
    if list(shape.get("size", ())) != [height, width]:
        raise InputError(
            f"{shown}: its run lengths are for size {shape.get('size')}, the image has "
            f"[{height}, {width}] (height, width)"
        )
    counts = shape["counts"]
    counts = _unpacked(counts) if isinstance(counts, str) else [int(c) for c in counts]
    if min(counts, default=0) < 0 or sum(counts) != width * height:
        raise InputError(f"{shown}: its run lengths do not add up to the image's pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _unpacked(text: str) -> list[int]:
    """Counts of COCO's compressed run lengths.

    Five bits a character, as differences to the last but one (`rleFrString` of the COCO API).
    """
    counts: list[int] = []
    value, shift = 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError("no compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts
