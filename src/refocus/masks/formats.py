"""The table of masks that people already have; each format is a row of `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from refocus.errors import InputError
from refocus.masks.boxes import boxes, voc_boxes
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
    "boxes": boxes,
    "label-studio": label_studio,
    "cvat": cvat,
    "sam": sam,
}


def reader(
    name: str, source: Path, ignore: int | None = None, *, images: Sequence[Path] = ()
) -> MaskReader:
    """The reader of a format.

    Args:
        name: a row of `FORMATS`.
        source: the folder or file.
        ignore: for png, a value that counts as background.
        images: all images that will be asked for, so that a name that several of them have is not
            taken for one of them.

    Raises:
        InputError: no such format, or a source that is none.
    """
    if name not in FORMATS:
        raise InputError(f"‹source› {name}: legal are {', '.join(FORMATS)}")
    if ignore is not None and name != "png":
        raise InputError(
            f"‹ignore› {ignore}: only with ‹source› png; the other formats name their own"
        )
    source = source.expanduser()
    return png(source, images, ignore) if name == "png" else FORMATS[name](source, images)
