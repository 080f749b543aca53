"""Masks drawn as pictures: PNG and others, ImageNet-S, Pascal VOC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from refocus.data.images import (
    LOSSY,
    UNREADABLE,
    File,
    alpha_of,
    fills_areas,
    listed,
    looks_like_void,
    numbers_left,
    open_upright,
    palette_colours,
)
from refocus.data.listing import EXTENSIONS
from refocus.errors import InputError, first_line
from refocus.masks.joins import Join, files_below
from refocus.masks.reading import MaskReader, Size

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
_COLOURS = 256  # more are of a photograph
_SOFT = (32, 4)  # levels above which a grey mask is soft in any case, and up to white
_NEARLY_WHITE = 250
_DEEP = 257  # the white of 16 bits divided by that of 8
_GREY = 8  # channels of a grey JPEG may differ by this much

Foreground = Callable[[File, Path], np.ndarray]


def png(source: Path, images: Sequence[Path] = (), ignore: int | None = None) -> MaskReader:
    """A folder of masks, `CLASS/STEM.png` or `STEM.png`.

    In grey, in the colours of a palette or in alpha: 0 or black is background, all else foreground
    but `ignore`; a soft mask, of 8 or 16 bits, is cut at half.
    """
    return _drawn(source, images, lambda file, path: _foreground(file, path, ignore))


def imagenet_s(source: Path, images: Sequence[Path] = ()) -> MaskReader:
    """ImageNet-S: `CLASS/STEM.png`, id = R + 256 G.

    0 is other, 1000 is ignored and counts as background.
    """

    def foreground(file: File, path: Path) -> np.ndarray:
        values = np.asarray(file.picture)
        if values.ndim != 3:
            raise InputError(
                f"{path}: not an ImageNet-S mask: it has no colour channels (id = R + 256 G)"
            )
        ids = values[..., 0].astype(int) + 256 * values[..., 1].astype(int)
        found: np.ndarray = (ids != 0) & (ids != _IMAGENET_S_IGNORED)
        return found

    drawn = _drawn(source, images, foreground)

    def read(image: Path, size: Size) -> np.ndarray | None:
        return None if image.parent.name in MERGED_SYNSETS else drawn(image, size)

    return MaskReader(read, drawn.size, drawn.picture)


def voc(source: Path, images: Sequence[Path] = ()) -> MaskReader:
    """Pascal VOC: a folder of `SegmentationClass` or `SegmentationObject` PNGs.

    Palette index 0 is background, 255 the border of objects, which counts as background.
    """

    def foreground(file: File, path: Path) -> np.ndarray:
        values = np.asarray(file.picture)
        if values.ndim != 2:
            raise InputError(f"{path}: not a Pascal VOC mask: it is in colours without a palette")
        found: np.ndarray = (values != 0) & (values != _VOC_BORDER)
        return found

    return _drawn(source, images, foreground)


def _drawn(source: Path, images: Sequence[Path], foreground: Foreground) -> MaskReader:
    files = files_below(source, EXTENSIONS)
    join = Join(files, images, drawn=True)

    def picture(image: Path) -> Path | None:
        name = join(image)
        return None if name is None else files[name]

    def size(image: Path) -> Size | None:
        file = picture(image)
        return None if file is None else _opened(file).picture.size

    def read(image: Path, size: Size) -> np.ndarray | None:
        file = picture(image)
        if file is None:
            return None
        mask = foreground(_opened(file), file)
        if mask.shape != size[::-1]:
            raise InputError(
                f"{file}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its image "
                f"{size[0]}x{size[1]}"
            )
        return mask

    return MaskReader(read, size, picture)


def _opened(path: Path) -> File:
    try:
        return open_upright(path, alone=True)
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as a mask ({first_line(error)})") from error


def _foreground(file: File, path: Path, ignore: int | None) -> np.ndarray:
    picture = file.picture
    alpha = alpha_of(picture, path)
    if alpha is not None:
        left = numbers_left(picture, alpha)
        if left is None:
            _refuse_ignored("its colours are no values", path, ignore)
            return alpha > 127
        _refuse_void(left, path, ignore)
        ignored: np.ndarray = (alpha > 127) & (left != (-1 if ignore is None else ignore))
        return ignored
    if picture.mode == "P":
        return _of_palette(picture, path, ignore)
    values = np.asarray(picture)
    if values.ndim == 3:
        values = np.asarray(picture.convert("L" if "L" in picture.getbands() else "RGB"))
    if values.ndim == 3 and int(np.ptp(values.astype(np.int16), axis=-1).max()) > _GREY:
        _refuse_ignored("its colours are no values", path, ignore)
        return _of_colours(values, path)
    grey = values if values.ndim == 2 else values[..., 0]
    if file.kind not in LOSSY:
        return _of_levels(grey, path, ignore)
    _refuse_ignored(f"{file.kind} keeps no exact values", path, ignore)
    return grey > 127


def _refuse_ignored(why: str, path: Path, ignore: int | None) -> None:
    """Stop where a value to ignore cannot be found; 0, which is background in any case, may be."""
    if ignore:
        raise InputError(
            f"{path}: ‹ignore={ignore}› cannot be obeyed, for {why}; leave it out, or save the "
            "mask as ids, in grey or with a palette"
        )


def _of_palette(picture: Image.Image, path: Path, ignore: int | None) -> np.ndarray:
    """By colour, for an index says nothing: black is background."""
    indices, colours = palette_colours(picture)
    kept = np.unique(indices)
    shown = colours[kept]
    _refuse_void(indices, path, ignore)
    if (shown == shown[:, :1]).all():
        levels = colours[indices][..., 0]
        values: np.ndarray = _of_levels(levels, path, ignore) & (
            indices != (-1 if ignore is None else ignore)
        )
        return values
    if shown.any(axis=1).all():
        raise InputError(
            f"{path}: no colour of its palette is black, so the background is unknown; must have "
            "a black background"
        )
    mask: np.ndarray = colours[indices].any(axis=-1)
    return mask if ignore is None else mask & (indices != ignore)


def _of_colours(values: np.ndarray, path: Path) -> np.ndarray:
    colours = np.unique(values.reshape(-1, 3), axis=0)
    if len(colours) > _COLOURS or colours.any(axis=1).all():
        what = "photograph" if len(colours) > _COLOURS else "picture without black background"
        raise InputError(f"{path}: is a {what}; must be a mask on a black background")
    return np.asarray(values.any(axis=-1))


def _of_levels(values: np.ndarray, path: Path, ignore: int | None) -> np.ndarray:
    """Ids count alike; a soft mask, of many levels up to white, is cut at half."""
    if not np.isfinite(values).all() or values.min() < 0:
        raise InputError(f"{path}: its values are negative or not finite; must be ids from 0")
    kept = values != (-1 if ignore is None else ignore)
    if values.dtype.kind == "f" and values.max() <= 1:
        return np.asarray((values > 0.5) & kept)
    _refuse_void(values, path, ignore)
    left = np.where(kept, values, 0)
    return np.asarray(left / _scale(left) > 127.5 if _is_soft(left) else left != 0)


def _scale(values: np.ndarray) -> int:
    """What white is of 255: ids may go up to 257, and soft masks of 16 bits do not end there."""
    return _DEEP if values.max() > _DEEP else 1


def _is_soft(values: np.ndarray) -> bool:
    levels = np.unique([0, *np.unique(values)])
    scale, (many, some) = _scale(levels), _SOFT
    if len(levels) - 1 == levels[-1]:  # ids 0, 1, 2, ... without a gap
        return False
    between = (values > 0) & (values < levels[-1])
    if _NEARLY_WHITE <= levels[-1] / scale <= 255:
        # smoothed edges fill no area, as ids between black and white do
        smoothed = bool(between.any()) and not fills_areas(values, between)
        if len(levels) > some + 2 or smoothed:
            return True
    if levels[-1] > 255 * scale or len(levels) <= many:
        return False
    # 16 bits hold many ids with gaps, which fill areas
    return scale == 1 or not fills_areas(values, between)


def _refuse_void(values: np.ndarray, path: Path, ignore: int | None) -> None:
    """255, or 65535, beside ids is what is not labelled."""
    levels = np.unique(values)
    top = levels[-1]
    scaled = values / (_DEEP if top > 255 else 1)
    if ignore is None and top in (255, 65535) and looks_like_void(scaled):
        raise InputError(
            f"{path}: has {top} beside {listed(levels)}, as if it meant not labelled; give "
            f"‹ignore={top}› to count it as background, or ‹ignore=0› if it is an object"
        )
