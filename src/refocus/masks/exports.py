"""Masks exported by annotation tools: Label Studio's JSON, CVAT's XML, the JSON of SAM."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import numpy as np

from refocus.errors import InputError, first_line
from refocus.files import read_json, read_text
from refocus.masks.boxes import rectangles
from refocus.masks.coco import run_lengths
from refocus.masks.joins import files_below
from refocus.masks.reading import MaskReader, Size, checked_size
from refocus.masks.shapes import (
    Annotated,
    Shape,
    add,
    polygon,
    shapes_reader,
)

_MOST = 1 << 30  # bytes of an export
_PIXELS = 1 << 28  # of one mask
_WHOLE = 101  # percents of an image, rounded
# what Label Studio puts before the name of an upload: /data/upload/PROJECT/0123abcd-NAME
_UPLOADED = re.compile(r"(?P<folder>(?:^|/)upload/(?:[0-9]+/)?)[0-9a-f]{8}-(?=[^/]+$)")
_LINES = ("polyline", "points", "skeleton", "cuboid")  # of CVAT, which enclose no area of the image
_UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


# --- Label Studio -------------------------------------------------------------------------------


def label_studio(source: Path, images: Sequence[Path] = ()) -> MaskReader:
    """Label Studio's export as JSON: brushes, polygons, rectangles and ellipses.

    Cancelled annotations do not count; of several that are finished the last one counts.
    """
    content = read_json(source, most=_MOST)
    if not isinstance(content, list):
        raise InputError(f"‹source› {source}: not Label Studio's JSON export (a list of tasks)")
    entries: dict[str, Annotated] = {}
    for task in content:
        shown = f"{source}: task {task.get('id') if isinstance(task, dict) else '?'}"
        try:
            name, entry = _task(task, shown)
        except _UNREADABLE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{shown} cannot be read ({error!r})") from error
        add(entries, name, entry, str(source))
    return shapes_reader(entries, source, images)


def _task(task: dict[str, Any], shown: str) -> tuple[str, Annotated]:
    data = task["data"]
    where = str(data[next((key for key in ("image", "img", "url") if key in data), "image")])
    parts = urlsplit(where)
    local = parse_qs(parts.query).get("d")
    name = unquote(local[0]) if local else _UPLOADED.sub(r"\g<folder>", unquote(parts.path))
    done = [a for a in task["annotations"] if not a.get("was_cancelled")]
    results = [r for r in (done[-1]["result"] if done else []) if r.get("value")]
    if any(r.get("image_rotation") for r in results):
        problem = f"{shown}: was annotated on a rotated image; annotate it as it is stored"
        return name, Annotated((), problem=problem)
    sizes = [checked_size(r.get("original_width"), r.get("original_height")) for r in results]
    size = next((found for found in sizes if found), None)
    shapes, lines = list[Shape](), list[str]()
    for value in (r["value"] for r in results):
        draw = _drawn(value, size, shown)
        labels: list[str] = next((v for k, v in value.items() if k.endswith("labels") and v), [])
        if draw is None:
            lines += map(str, labels)
        else:
            shapes += [Shape(str(label), draw) for label in labels or [""]]
    return name, Annotated(shapes, size, lines=lines)


def _drawn(
    value: dict[str, Any], size: Size | None, shown: str
) -> Callable[[Size], np.ndarray] | None:
    """One region; numbers are percents of the image. None for what is no region."""
    if "rle" in value:
        return lambda wanted: _brush(value["rle"], wanted, shown)
    if size is None:
        return None
    width, height = size[0] / 100, size[1] / 100
    if "points" in value:
        corners = [(float(x) * width, float(y) * height) for x, y in value["points"]]
    elif "radiusX" in value:
        corners = _ellipse(*(float(value[k]) for k in ("x", "y", "radiusX", "radiusY")))
        corners = _turned(corners, value, (float(value["x"]), float(value["y"])), (width, height))
    elif {"x", "y", "width", "height"} <= value.keys():
        x, y, w, h = (float(value[k]) for k in ("x", "y", "width", "height"))
        if not value.get("rotation") and max(x + w, y + h) > _WHOLE:
            raise InputError(
                f"{shown}: a rectangle ends at {max(x + w, y + h):g} % of its image; must be "
                "in percent, up to 100"
            )
        corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
        corners = _turned(corners, value, (x, y), (width, height))
    else:
        return None
    return polygon(corners, shown)


def _ellipse(x: float, y: float, rx: float, ry: float) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles]


def _turned(
    corners: list[tuple[float, float]],
    value: Mapping[str, Any],
    centre: tuple[float, float],
    scale: tuple[float, float],
) -> list[tuple[float, float]]:
    """Corners in pixels, turned clockwise about a point.

    scale: pixels of what all of them were given in, such as percents.
    """
    angle = np.deg2rad(float(value.get("rotation") or 0))
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    found = []
    for x, y in corners:
        dx, dy = (x - centre[0]) * scale[0], (y - centre[1]) * scale[1]
        found.append((centre[0] * scale[0] + dx * cos - dy * sin,
                      centre[1] * scale[1] + dx * sin + dy * cos))  # fmt: skip
    return found


def _brush(packed: Sequence[int], size: Size, shown: str) -> np.ndarray:
    """Label Studio's run lengths: bytes of RGBA pixels, of which alpha is the mask."""
    width, height = size
    try:
        values = _unpacked(bytes(packed))
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"{shown}: its brush cannot be read ({first_line(error)})") from error
    if len(values) != width * height * 4:
        raise InputError(
            f"{shown}: its brush is of {len(values) // 4} pixels, the image has {width * height}"
        )
    return np.asarray(values.reshape(height, width, 4)[..., 3] > 127)


class _Bits:
    """Reads numbers of any number of bits from bytes."""

    def __init__(self, content: bytes) -> None:
        self.bits = np.unpackbits(np.frombuffer(content, np.uint8))
        self.place = 0

    def take(self, count: int) -> int:
        end = self.place + count
        if end > len(self.bits):
            raise ValueError("it ends too early")
        value = int("".join(map(str, self.bits[self.place : end])), 2)
        self.place = end
        return value


def _unpacked(content: bytes) -> np.ndarray:
    """The format of thi.ng/rle-pack: number of values, bits of a value, four bits of run lengths.

    Then runs: one bit says whether a value repeats, two which of the four lengths follows.
    """
    bits = _Bits(content)
    count, word = bits.take(32), bits.take(5) + 1
    if count > 4 * _PIXELS:
        raise ValueError("too many pixels")
    lengths = [bits.take(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    place = 0
    while place < count:
        repeats = bits.take(1)
        end = place + 1 + bits.take(lengths[bits.take(2)])
        if end > count:
            raise ValueError("a run is too long")
        if repeats:
            values[place:end] = bits.take(word)
        else:
            values[place:end] = [bits.take(word) for _ in range(place, end)]
        place = end
    return values


# --- CVAT ---------------------------------------------------------------------------------------


def cvat(source: Path, images: Sequence[Path] = ()) -> MaskReader:
    """CVAT's export "for images" (XML 1.1): polygons, boxes, ellipses and masks."""
    try:
        root: Any = ElementTree.fromstring(read_text(source, most=_MOST))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(f"‹source› {source}: not CVAT's XML ({first_line(error)})") from error
    entries: dict[str, Annotated] = {}
    for image in root.findall("image"):
        name = image.get("name", "")
        shown = f"{source}: {name}"
        try:
            shapes = [s for child in image if (s := _child(child, shown)) is not None]
        except _UNREADABLE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{shown} cannot be read ({error!r})") from error
        size = checked_size(image.get("width"), image.get("height"))
        lines = [child.get("label", "") for child in image if child.tag in _LINES]
        add(entries, name, Annotated(shapes, size, lines=lines), str(source))
    if not entries:
        raise InputError(f"‹source› {source}: not CVAT's XML for images (it has no image)")
    return shapes_reader(entries, source, images)


def _child(child: Any, shown: str) -> Shape | None:
    label, get = child.get("label", ""), child.attrib
    if child.tag == "polygon":
        pairs = [pair.split(",") for pair in get["points"].split(";")]
        return Shape(label, polygon([(float(x), float(y)) for x, y in pairs], shown))
    if child.tag == "box":
        x0, y0, x1, y1 = (float(get[k]) for k in ("xtl", "ytl", "xbr", "ybr"))
        if not float(get.get("rotation") or 0):
            return Shape(label, lambda size: rectangles([(x0, y0, x1, y1)], size, shown))
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        centre = ((x0 + x1) / 2, (y0 + y1) / 2)
        return Shape(label, polygon(_turned(corners, get, centre, (1, 1)), shown))
    if child.tag == "ellipse":
        x, y, rx, ry = (float(get[k]) for k in ("cx", "cy", "rx", "ry"))
        corners = _turned(_ellipse(x, y, rx, ry), get, (x, y), (1, 1))
        return Shape(label, polygon(corners, shown))
    if child.tag == "mask":
        counts = [int(c) for c in get["rle"].split(",")]
        left, top, width, height = (int(get[k]) for k in ("left", "top", "width", "height"))
        return Shape(label, lambda size: _box_mask(counts, (left, top, width, height), size, shown))
    return None


def _box_mask(
    counts: list[int], box: tuple[int, int, int, int], size: Size, shown: str
) -> np.ndarray:
    """Run lengths row by row in a box, background first."""
    left, top, width, height = box
    outside = min(box) < 0 or left + width > size[0] or top + height > size[1]
    if outside or min(counts) < 0 or sum(counts) != width * height:
        raise InputError(f"{shown}: a mask's run lengths do not fit its box or the image")
    mask = np.zeros(size[::-1], bool)
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    mask[top : top + height, left : left + width] = inside
    return mask


# --- SAM ----------------------------------------------------------------------------------------


def sam(source: Path, images: Sequence[Path] = ()) -> MaskReader:
    """SAM's masks as run lengths: a folder with one JSON file for each image, as SA-1B has them.

    An image of several masks is left out: none of them says that it is the object, unless they
    have labels.
    """
    entries: dict[str, Annotated] = {}
    for name, file in files_below(source, (".json",)).items():
        content = read_json(file, most=_MOST)
        try:
            said = content.get("image", {}) if isinstance(content, dict) else {}
            rows = content["annotations"] if isinstance(content, dict) else list(content)
            shapes = list(_segments(rows, str(file)))
            size = checked_size(said.get("width"), said.get("height"))
            called = str(said.get("file_name") or name)
        except _UNREADABLE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file}: not what SAM writes ({error!r})") from error
        add(entries, called, Annotated(shapes, size), str(source))
    return shapes_reader(entries, source, images)


def _segments(rows: Sequence[dict[str, Any]], shown: str) -> Iterator[Shape]:
    for row in rows:
        runs = row["segmentation"]
        label = str(row.get("label") or row.get("category") or "")
        if not label and len(rows) > 1:
            reason = (
                f"{shown}: has {len(rows)} masks, and nothing says which is the object; keep "
                "only that one"
            )
            yield Shape("", partial(_refused, reason))
            return
        yield Shape(label, partial(_runs, runs, shown))


def _runs(runs: dict[str, Any], shown: str, size: Size) -> np.ndarray:
    try:
        return run_lengths(runs, size, shown)
    except _UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shown}: its run lengths cannot be read ({error!r})") from error


def _refused(reason: str, _size: Size) -> np.ndarray:
    raise InputError(reason)
