"""The table of masks that people already have; each format is a row of `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from refocus.errors import InputError
from refocus.masks.boxes import ASK, CORNERS, voc_boxes
from refocus.masks.boxes import boxes as csv_boxes
from refocus.masks.coco import coco
from refocus.masks.exports import cvat, label_studio, sam
from refocus.masks.pictures import imagenet_s, png, voc
from refocus.masks.reading import MaskReader

FORMATS: dict[str, Callable[..., MaskReader]] = {
    "png": png,
    "imagenet-s": imagenet_s,
    "coco": coco,
    "voc": voc,
    "voc-boxes": voc_boxes,
    "boxes": csv_boxes,
    "label-studio": label_studio,
    "cvat": cvat,
    "sam": sam,
}
_CORNERED = ("boxes", "voc-boxes")  # whose boxes are corners, in pixels or, by mistake, percents


def reader(
    name: str,
    source: Path,
    ignore: int | None = None,
    *,
    images: Sequence[Path] = (),
    boxes: str = ASK,
) -> MaskReader:
    """The reader of a format.

    Args:
        name: a row of `FORMATS`.
        source: the folder or file.
        ignore: for png, a value that counts as background.
        images: all images that will be asked for, so that a name that several of them have is not
            taken for one of them.
        boxes: for coco, "xywh", "corners", "centers" or "ask": what a box's numbers are. For boxes
            and voc-boxes, "corners" says that they are pixels where they could be percents.

    Raises:
        InputError: no such format, or a source that is none, or one that leaves open what its boxes
            are.
    """
    if name not in FORMATS:
        raise InputError(f"‹source› {name}: choose one of {', '.join(FORMATS)}")
    if ignore is not None and name != "png":
        raise InputError(
            f"‹ignore› {ignore}: only with ‹source› png; the other formats define their own"
        )
    if boxes != ASK and name != "coco" and (boxes != CORNERS or name not in _CORNERED):
        others = f", {' and '.join(_CORNERED)}" if boxes == CORNERS else ""
        raise InputError(
            f"‹boxes› {boxes}: only with ‹source› coco{others}; the other formats define it"
        )
    source = source.expanduser()
    if name == "png":
        return png(source, images, ignore)
    return FORMATS[name](source, images, *((boxes,) if name in ("coco", *_CORNERED) else ()))
