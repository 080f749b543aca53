"""Masks that people already have -> bool `[H, W]`, true on the foreground.

Each format is a row of `FORMATS`.

A reader takes what was given after the format's name and answers, for an image file, its mask or
None where it has none.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageOps

from refocus.errors import InputError
from refocus.outputs import read_json

MaskReader = Callable[
    [Path, tuple[int, int]], "np.ndarray | None"
]  # image file, (width, height) -> mask

# ImageNet-S merges these synsets with others, so its masks do not say which of them an image shows
# (method facts)
MERGED_SYNSETS = frozenset(
    {
        "n04356056",
        "n04355933",
        "n04493381",
        "n02808440",
        "n03642806",
        "n03832673",
        "n04008634",
        "n03773504",
        "n03887697",
        "n15075141",
    }
)
_IMAGENET_S_IGNORED = 1000
_VOC_BORDER = 255
_MOST = 1 << 32  # bytes of a COCO file; that of its 118 287 training images has 450 MB


def png(source: Path, ignore: int | None = None) -> MaskReader:
    """A folder of grey or palette PNGs, `CLASS/STEM.png` or `STEM.png`.

    0 is background, all else foreground but `ignore`.
    """
    return _pictures(source, lambda values: (values != 0) & (values != ignore))


def imagenet_s(source: Path) -> MaskReader:
    """ImageNet-S: `CLASS/STEM.png`, id = R + 256 G.

    0 is other, 1000 is ignored and counts as background.
    """

    def foreground(values: np.ndarray) -> np.ndarray:
        if values.ndim != 3:
            raise InputError("not an ImageNet-S mask: it has no colour channels (id = R + 256 G)")
        ids = values[..., 0].astype(int) + 256 * values[..., 1].astype(int)
        return (ids != 0) & (ids != _IMAGENET_S_IGNORED)

    read = _pictures(source, foreground)
    return lambda image, size: None if image.parent.name in MERGED_SYNSETS else read(image, size)


def voc(source: Path) -> MaskReader:
    """Pascal VOC: a folder of `SegmentationClass` or `SegmentationObject` PNGs.

    Palette index 0 is background, 255 the border of objects, which counts as background.
    """
    return png(source, ignore=_VOC_BORDER)


def voc_boxes(source: Path) -> MaskReader:
    """Pascal VOC or ImageNet annotations: a folder of XML files, each box a rectangle.

    Both corners belong to the box.
    """
    files = _by_name(source, ".xml")

    def read(image: Path, size: tuple[int, int]) -> np.ndarray | None:
        file = _find(files, image)
        if file is None:
            return None
        try:
            boxes = [
                [float(b.findtext(tag, "")) for tag in ("xmin", "ymin", "xmax", "ymax")]
                for b in _objects(file, image)
            ]
        except (ElementTree.ParseError, ValueError) as error:
            raise InputError(f"{file}: not a Pascal VOC annotation ({error})") from error
        return _rectangles(
            [(x0 - 1, y0 - 1, x1, y1) for x0, y0, x1, y1 in boxes], size
        )  # VOC counts from 1

    return read


def _objects(file: Path, image: Path) -> list[Any]:
    """Boxes of the objects named like the image's class folder, or of all objects where none is."""
    objects = ElementTree.parse(file).getroot().findall("object")
    named = [o for o in objects if o.findtext("name") == image.parent.name]
    return [box for o in (named or objects) if (box := o.find("bndbox")) is not None]


def boxes(source: Path) -> MaskReader:
    """A CSV file with the columns image,xmin,ymin,xmax,ymax.

    In pixels from 0, the right and lower edge outside; several rows for an image add up. image is
    `CLASS/FILE` or `FILE`.
    """
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    try:
        with source.open(newline="") as file:
            for row in csv.DictReader(file):
                corners = tuple(float(row[c]) for c in ("xmin", "ymin", "xmax", "ymax"))
                if not np.isfinite(corners).all():
                    raise ValueError(f"{row['image']} has a box that is not finite")
                found[row["image"]].append(corners)
    except OSError as error:
        raise InputError(f"‹source› boxes {source}: cannot be read ({error.strerror})") from error
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"‹source› boxes {source}: must be CSV with image,xmin,ymin,xmax,ymax ({error!r})"
        ) from error

    plain = _unique_names(found)

    def read(image: Path, size: tuple[int, int]) -> np.ndarray | None:
        mine = next(
            (
                found[n]
                for n in (f"{image.parent.name}/{image.name}", image.name, plain.get(image.name))
                if n in found
            ),
            None,
        )
        return _rectangles(mine, size) if mine else None

    return read


def coco(source: Path) -> MaskReader:
    """COCO instances JSON: polygons and RLE, or the box where there is no segmentation.

    RLE compressed or not. Objects of the category named like the image's class folder, else all;
    crowds count.
    """
    try:
        from pycocotools import mask as rle
    except ImportError as error:
        raise InputError(
            "‹source› coco: pycocotools is not installed; run `pip install refocus-vit[coco]`"
        ) from error
    content = read_json(source, most=_MOST)
    try:
        categories = {c["id"]: c["name"] for c in content.get("categories", [])}
        entries = {i["id"]: i for i in content["images"]}
        of_file: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            of_file[entries[annotation["image_id"]]["file_name"]].append(annotation)
        plain = _unique_names(of_file)
        sizes = {i["file_name"]: (i["width"], i["height"]) for i in entries.values()}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"‹source› coco {source}: not a COCO instances file ({error!r})"
        ) from error

    def read(image: Path, size: tuple[int, int]) -> np.ndarray | None:
        name = next(
            (n for n in (f"{image.parent.name}/{image.name}", image.name) if n in of_file),
            plain.get(image.name),
        )
        if name is None:
            return None
        if tuple(sizes[name]) != tuple(size):
            raise InputError(
                f"{image}: is {size[0]}x{size[1]} pixels, {source.name} says "
                f"{sizes[name][0]}x{sizes[name][1]}"
            )
        named = [
            a for a in of_file[name] if categories.get(a.get("category_id")) == image.parent.name
        ]
        mask: np.ndarray = np.zeros(size[::-1], bool)
        for annotation in named or of_file[name]:
            try:
                mask = mask | _coco_object(annotation, size, rle)
            except Exception as error:  # pycocotools raises bare Exceptions
                raise InputError(
                    f"{source}: annotation {annotation.get('id')} of {name} cannot be read "
                    f"({error})"
                ) from error
        return mask

    return read


def _coco_object(annotation: dict[str, Any], size: tuple[int, int], rle: Any) -> np.ndarray:
    width, height = size
    shape = annotation.get("segmentation")
    if isinstance(shape, list):
        shape = [
            polygon for polygon in shape if len(polygon) >= 6
        ]  # fewer than three points enclose nothing
    if not shape:
        x, y, w, h = annotation["bbox"]
        return _rectangles([(x, y, x + w, y + h)], size)
    if isinstance(shape, list):
        encoded = rle.merge(rle.frPyObjects(shape, height, width))
    else:
        encoded = (
            rle.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
        )
    return np.asarray(rle.decode(encoded)).astype(bool)


def _unique_names(names: Iterable[str]) -> dict[str, str]:
    """File name without folders -> the name as given, where no other has it.

    Folders are often renamed.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[name.replace("\\", "/").rsplit("/", 1)[-1]].append(name)
    return {plain: given[0] for plain, given in found.items() if len(given) == 1}


def _rectangles(corners: list[tuple[float, ...]], size: tuple[int, int]) -> np.ndarray:
    """(x0, y0, x1, y1) in pixels, x1 and y1 outside, clipped to the image."""
    mask = np.zeros(size[::-1], bool)
    for x0, y0, x1, y1 in corners:
        mask[max(0, round(y0)) : max(0, round(y1)), max(0, round(x0)) : max(0, round(x1))] = True
    return mask


def _pictures(source: Path, foreground: Callable[[np.ndarray], np.ndarray]) -> MaskReader:
    files = _by_name(source, ".png")

    def read(image: Path, size: tuple[int, int]) -> np.ndarray | None:
        file = _find(files, image)
        if file is None:
            return None
        try:
            with Image.open(file) as opened:
                upright = ImageOps.exif_transpose(opened)
                opaque = {"RGBA": "RGB", "LA": "L", "PA": "P"}.get(
                    upright.mode
                )  # an alpha channel is no foreground
                values = np.asarray(
                    upright.convert(opaque) if opaque else upright
                )  # of a palette the indices: they are the ids
            mask: np.ndarray = foreground(values)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{file}: cannot be read as a mask ({error})") from error
        if mask.ndim == 3:
            mask = np.any(mask, axis=-1)
        if mask.shape != size[::-1]:
            raise InputError(
                f"{file}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its image "
                f"{size[0]}x{size[1]}"
            )
        return mask

    return read


def _by_name(source: Path, suffix: str) -> dict[str, Path]:
    """Mask files by "CLASS/STEM", and by "STEM" where they lie directly in the folder."""
    if not source.is_dir():
        raise InputError(f"‹source› {source}: no such folder")
    files = [*source.glob(f"*{suffix}"), *source.glob(f"*/*{suffix}")]
    if not files:
        raise InputError(
            f"‹source› {source}: holds no {suffix} files, neither directly nor in class folders"
        )
    return {f.relative_to(source).with_suffix("").as_posix(): f for f in sorted(files)}


def _find(files: dict[str, Path], image: Path) -> Path | None:
    return files.get(f"{image.parent.name}/{image.stem}") or files.get(image.stem)


FORMATS: dict[str, Callable[..., MaskReader]] = {
    "png": png,
    "imagenet-s": imagenet_s,
    "coco": coco,
    "voc": voc,
    "voc-boxes": voc_boxes,
    "boxes": boxes,
}


def reader(name: str, source: Path, ignore: int | None = None) -> MaskReader:
    """The reader for masks of format `name` (a row of FORMATS) that lie in `source`."""
    if name not in FORMATS:
        raise InputError(f"‹source› {name}: legal are {', '.join(FORMATS)}")
    if ignore is not None and name != "png":
        raise InputError(
            f"‹ignore› {ignore}: only for ‹source› png; the other formats name their own"
        )
    source = source.expanduser()
    return png(source, ignore) if name == "png" else FORMATS[name](source)
