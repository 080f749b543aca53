"""Masks that people have, taken over onto upright images.

What is open is asked before anything is written.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from refocus.data.images import orientation, read_image, said_orientation, size_tells
from refocus.data.polarity import ASK, INVERT, POLARITIES, frame_share, is_image
from refocus.errors import InputError
from refocus.masks.reading import MaskReader, Size

log = logging.getLogger("refocus")

UPRIGHT, RAW = "upright", "raw"
ORIENTATIONS = (ASK, UPRIGHT, RAW)
_LOOKED_AT = 16  # masks, evenly spaced in the listing
_BORDER = 0.5  # share of an image's frame that an object rarely covers, and a background often does
_TURN = {  # EXIF orientation -> what brings stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ASIDE = (5, 6, 7, 8)  # orientations that exchange width and height


def refuse_open_questions(
    reader: MaskReader, files: Sequence[Path], *, frame: str, mask_polarity: str
) -> None:
    """Look at the images and at some masks before anything is written.

    Args:
        reader: of the source.
        files: all images.
        frame: "upright", "raw" or "ask": whether annotations were made on images as viewers show
            them, or on stored pixels where EXIF says to turn them.
        mask_polarity: "keep", "invert" or "ask".

    Raises:
        InputError: "ask", and sizes do not tell; or most masks cover the border, or are their
            images; or another answer.
    """
    for name, value, legal in (
        ("orientation", frame, ORIENTATIONS),
        ("mask_polarity", mask_polarity, POLARITIES),
    ):
        if value not in legal:
            raise InputError(f"‹{name}› {value}: choose one of {', '.join(legal)}")
    tagged = [file for file in files if orientation(file) != 1]
    unclear = [file for file in tagged if frame == ASK and _frame(reader, file) is None]
    if unclear:
        raise InputError(
            f"{unclear[0]}: carries an EXIF orientation; for {len(unclear)} of {len(files)} images "
            "the size does not tell whether they were annotated upright or as stored; give "
            "‹orientation=upright› (most tools) or ‹orientation=raw›"
        )
    if tagged:
        raw = sum((_frame(reader, file) or frame) == RAW for file in tagged)
        log.info(
            "%d of %d images carry an EXIF orientation: %d annotated upright, %d on stored pixels",
            len(tagged),
            len(files),
            len(tagged) - raw,
            raw,
        )
    if mask_polarity == ASK:
        _refuse_doubtful(reader, files, frame)


def _frame(reader: MaskReader, file: Path) -> str | None:
    """Upright or raw, as the size that the source says tells; None where it does not."""
    if orientation(file) == 1:
        return UPRIGHT
    try:
        said, drawn = reader.size(file), reader.picture(file)
    except InputError:  # said where its mask is read
        return UPRIGHT
    if drawn is not None and said_orientation(drawn) is not None:  # and was turned by it
        return UPRIGHT
    if said is None or not size_tells(file):
        return None
    return RAW if tuple(said) == _stored(file) else UPRIGHT


def _stored(file: Path) -> Size:
    """Of the stored pixels: Pillow opens a turned TIFF with its size upright, a turned JPEG not."""
    width, height = read_image(file).size
    return (height, width) if orientation(file) in _ASIDE else (width, height)


def upright(reader: MaskReader, file: Path, size: Size, frame: str) -> np.ndarray | None:
    """The mask of an image bool `[H, W]` as the image stands upright, of `size`.

    None where the source has none.
    """
    tag = orientation(file)
    if (_frame(reader, file) or frame) != RAW or tag not in _TURN:
        return reader(file, size)
    mask = reader(file, _stored(file))
    return None if mask is None else np.asarray(Image.fromarray(mask).transpose(_TURN[tag]))


def mask_for(reader: MaskReader, file: Path, *, frame: str, mask_polarity: str) -> np.ndarray:
    """The mask of an image, bool `[H, W]`.

    Raises:
        InputError: the source has none, it cannot be read, or it marks nothing or everything.
    """
    mask = upright(reader, file, read_image(file).size, frame)
    if mask is None:
        raise InputError(f"{file}: no mask for it in the source")
    if not mask.any() or mask.all():
        raise InputError(
            f"{file}: its mask in the source marks {'everything' if mask.any() else 'nothing'}"
        )
    return ~mask if mask_polarity == INVERT else mask


def _is_image(drawn: Path, image: Path) -> bool:
    """Whether what a mask is drawn in is the image itself in grey."""
    try:
        return is_image(np.asarray(read_image(drawn).convert("L"), np.float32) / 255, image)
    except InputError:  # 16-bit ids, say
        return False


def _refuse_doubtful(reader: MaskReader, files: Sequence[Path], frame: str) -> None:
    around, same, read = 0, 0, 0
    places = np.linspace(0, len(files) - 1, min(_LOOKED_AT, len(files))).astype(int)
    for file in [files[i] for i in places]:
        try:
            drawn = reader.picture(file)
            if drawn is None:
                continue
            if drawn.samefile(file):
                raise InputError(f"‹source› {drawn.parent}: holds the images; give their masks")
            mask = upright(reader, file, read_image(file).size, frame)
        except InputError as error:
            if "holds the images" in str(error):
                raise
            continue
        if mask is not None:
            read += 1
            around += frame_share(mask) > _BORDER
            same += _is_image(drawn, file)
    if 2 * same > read:
        raise InputError(
            f"‹source›: of {read} masks examined, {same} look like their images; give the folder "
            "of masks, or ‹mask_polarity=keep› if they are masks"
        )
    if 2 * around > read:
        raise InputError(
            f"‹source›: of {read} masks examined, {around} cover most of the image's border, as "
            "if object and background were swapped; give ‹mask_polarity=invert› to swap them, or "
            "‹mask_polarity=keep›"
        )
