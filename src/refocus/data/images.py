"""One image file or one mask file -> pixels, with nothing guessed that could be wrong.

What a file may look like and what is refused stands in docs/inputs.md. A mask is float `[1, H, W]`
in [0, 1].
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from refocus.errors import InputError, first_line
from refocus.records import Sample
from refocus.vit.inputs import check_path, shown

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # Pillow's own
_FULL = 16384  # 16-bit pixels that end below are of 10, 12 or 14 bits, or of a picture in the dark
_LONG = (
    100  # times as long as wide; a longer picture takes gigabytes where its short side is scaled
)
_MIRRORED_OR_TURNED = (2, 3, 4)  # EXIF orientations that keep the size


@dataclass(frozen=True)
class File:
    """An upright picture in the mode it is stored in.

    deep: 16 bits a channel, of which Pillow keeps the upper 8 where there are several channels.
    kind: format by content.
    """

    picture: Image.Image
    deep: bool
    kind: str


# --- images -------------------------------------------------------------------------------------


def read_image(path: str | Path) -> Image.Image:
    """Read an image file as an upright RGB picture.

    EXIF rotation is applied, 16-bit greyscale keeps its range, what is transparent becomes white,
    of an animation the first frame is taken.

    Args:
        path: a file of any kind that Pillow reads.

    Returns:
        PIL image, RGB, 8 bits a channel.

    Raises:
        InputError: missing, truncated, not an image, so large or so long that decoding it could
            exhaust memory, or of pixels whose brightness is not known.

    Examples:
        >>> from PIL import Image
        >>> Image.new("L", (60, 40), 128).save("grey.png")
        >>> import refocus
        >>> image = refocus.read_image("grey.png")
        >>> image.mode, image.size
        ('RGB', (60, 40))
    """
    path = check_path(path)
    try:
        file = open_upright(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image") from error
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as an image ({first_line(error)})") from error
    _refuse_long(path, file.picture.size)
    try:
        return _opaque(_eight_bit(file, path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as an image ({first_line(error)})") from error


def orientation(path: Path) -> int:
    """The EXIF orientation of an image file, 1 where it has none or cannot be read."""
    try:
        with _bombs_refused(), Image.open(path) as file:
            return int(file.getexif().get(0x0112, 1))
    except (*UNREADABLE, TypeError):
        return 1


def keeps_size(tag: int) -> bool:
    """Whether an EXIF orientation mirrors or turns a picture so that its size does not tell."""
    return tag in _MIRRORED_OR_TURNED


class _bombs_refused(warnings.catch_warnings):  # noqa: N801
    """Pillow warns of too large a picture as soon as it is opened; here that is an error."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("error", Image.DecompressionBombWarning)


def open_upright(path: Path) -> File:
    """A picture as it is stored, turned upright.

    Raises:
        one of UNREADABLE.
    """
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")  # a pipe or a device would never end
    with _bombs_refused(), Image.open(path) as file:
        deep = any(";16" in repr(tile) for tile in getattr(file, "tile", ()))
        kind = str(file.format)
        file.load()
        return File(ImageOps.exif_transpose(file), deep, kind)


def _refuse_long(path: Path, size: tuple[int, int]) -> None:
    if max(size) > _LONG * min(size):
        raise InputError(
            f"{path}: is {size[0]}x{size[1]} pixels; legal is a side up to {_LONG} times the other"
        )


def _eight_bit(file: File, path: Path) -> Image.Image:
    """8 bits a channel; 16-bit grey, which Pillow would clip to white, is scaled.

    Raises:
        InputError: floating point, 32 bits, or 16 bits of which only the lower ones are used.
    """
    picture = file.picture
    if picture.mode == "F" or (picture.mode == "I" and file.kind not in ("PNG", "PPM")):
        raise InputError(
            f"{path}: its pixels are {'floating-point' if picture.mode == 'F' else '32-bit'} "
            "numbers, so it is unclear which of them is white; save it with 8 or 16 bits"
        )
    grey = picture.mode.startswith("I")
    if not (grey or file.deep):
        return picture
    values = np.asarray(picture)
    colours = values[..., :3] if values.ndim == 3 else values
    top = int(colours.max()) * (1 if grey else 256)
    if 0 < top < _FULL:
        raise InputError(
            f"{path}: its 16-bit values end near {top} of 65535, as those of 10, 12 or 14 bits do, "
            "so it is unclear which of them is white; scale it to 8 or to full 16 bits"
        )
    if not grey:
        return picture
    return Image.fromarray((values.astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))


def _opaque(picture: Image.Image) -> Image.Image:
    """RGB; what is transparent shows white, as viewers show it, not the colours hidden there."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    layered = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")


# --- masks --------------------------------------------------------------------------------------


def read_mask(
    path: str | Path, image: Image.Image | None = None, *, invert: bool = False
) -> Tensor:
    """Read a foreground mask: 0/255 with soft values between, or 0/1.

    A palette is read by its colours, and of a picture with an alpha channel that varies this
    channel is the mask.

    Args:
        path: a file of any kind that Pillow reads.
        image: the image it belongs to, whose size it must have.
        invert: exchange object and background.

    Returns:
        Floats `[1, H, W]` in [0, 1]; 1 is the object.

    Raises:
        InputError: unreadable, of another size than `image`, without any foreground or background,
            with object ids or void, or in colours.

    Examples:
        >>> from PIL import Image
        >>> mask = Image.new("L", (60, 40))
        >>> mask.paste(255, (20, 10, 40, 30))
        >>> mask.save("mask.png")
        >>> import refocus
        >>> found = refocus.read_mask("mask.png")
        >>> list(found.shape), float(found.mean())
        ([1, 40, 60], 0.1666666716337204)
    """
    path = check_path(path)
    if image is not None and not isinstance(image, Image.Image):
        raise InputError(f"image: {shown(image)}; legal is a PIL image, which read_image returns")
    try:
        values = mask_values(open_upright(path), path)
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a mask ({first_line(error)})") from error
    mask = torch.from_numpy(values)[None]
    if image is not None and mask.shape[1:] != (image.height, image.width):
        raise InputError(
            f"{path}: the mask is {mask.shape[2]}x{mask.shape[1]} pixels, its image "
            f"{image.width}x{image.height}; both must agree"
        )
    if mask.max() == 0 or mask.min() == 1:
        raise InputError(
            f"{path}: the mask is all {'background' if mask.max() == 0 else 'foreground'}; it must "
            "hold both"
        )
    return 1 - mask if invert else mask


def mask_of(sample: Sample, image: Image.Image | None = None) -> Tensor:
    """The mask of a sample that has one."""
    assert sample.mask is not None  # the caller chose samples with masks
    return read_mask(sample.mask, image, invert=sample.inverted)


_LEGAL = "legal are 0/255 with soft values between, or 0/1; `refocus masks` takes other masks over"


def mask_values(file: File, path: Path) -> np.ndarray:
    """Foreground `[H, W]` in [0, 1] from whichever channel says it."""
    alpha = alpha_of(file.picture)
    if alpha is not None:
        return _levels(alpha, path)
    picture = file.picture
    if picture.mode == "P":
        return _palette(picture, path)
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _levels(_deep_values(picture, path), path)
    if picture.mode in ("1", "L", "LA"):
        return _levels(np.asarray(picture.convert("L")), path)
    colours = np.asarray(picture.convert("RGB"))
    if int(np.ptp(colours.astype(np.int16), axis=-1).max()) > _GREY:
        raise InputError(
            f"{path}: is in colours, as a photograph or a map of classes is; a mask has one "
            f"channel ({_LEGAL})"
        )
    return _levels(colours[..., 0], path)


_GREY = 8  # channels of a grey JPEG may differ by this much


def alpha_of(picture: Image.Image) -> np.ndarray | None:
    """The alpha channel, uint8 `[H, W]`, where there is one that varies: then it is the mask."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return None
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    return alpha if alpha.min() < alpha.max() else None


def palette_colours(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Indices uint8 `[H, W]` of a palette picture, and the colours `[256, 3]` that they mean."""
    listed = np.zeros((256, 3), np.uint8)
    known = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    listed[: len(known)] = known
    return np.asarray(picture), listed


def _palette(picture: Image.Image, path: Path) -> np.ndarray:
    """By colour: grey levels as they are.

    Of two indices, one of them black, the other one is the foreground.
    """
    indices, colours = palette_colours(picture)
    used = np.unique(indices)
    shown = colours[used]
    if (shown == shown[:, :1]).all():
        return _levels(colours[indices][..., 0], path)
    black = ~shown.any(axis=1)
    if used.tolist() == [0, 1] and black.sum() == 1:
        return np.asarray(indices != used[black][0], np.float32)
    raise InputError(
        f"{path}: its values look like object ids ({len(used)} colours of a palette); {_LEGAL}"
    )


def _deep_values(picture: Image.Image, path: Path) -> np.ndarray:
    """16-bit, 32-bit and floating-point masks as uint8 levels."""
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise InputError(f"{path}: its values are negative or not finite; {_LEGAL}")
    if picture.mode == "F" and values.max() <= 1:
        values = values * 255
    return (values / (257 if values.max() > 255 else 1)).round().clip(0, 255).astype(np.uint8)


def _levels(values: np.ndarray, path: Path) -> np.ndarray:
    """Grey levels uint8 -> [0, 1], where they can be nothing else than a hard or a soft mask."""
    levels, counts = np.unique(values, return_counts=True)
    top = int(levels[-1])
    if top <= 1:
        return values.astype(np.float32)
    if top < _WHITE and looks_like_ids(levels):
        raise InputError(
            f"{path}: its values look like object ids (up to {top}, none near 255); {_LEGAL}"
        )
    if looks_like_void(levels, counts):
        raise InputError(
            f"{path}: has {top} beside {', '.join(str(v) for v in levels[1:-1])}, which look like "
            f"object ids with void; {_LEGAL}"
        )
    return np.asarray(values, np.float32) / 255


_WHITE = 250  # a soft mask comes near full foreground somewhere
_FEW = 32  # levels of a soft mask that never does
_VOID_IDS = 4  # ids beside void, of which a mask of one object has few


def looks_like_ids(levels: np.ndarray) -> bool:
    """Whether sorted levels that end below white number objects, rather than grade one."""
    ids = levels[levels > 0]
    counted = len(ids) == ids[-1]  # 1, 2, 3, ... without a gap
    return bool(ids[-1] < 128 or len(ids) <= _FEW or counted)


def looks_like_void(levels: np.ndarray, counts: np.ndarray) -> bool:
    """Whether the highest of sorted levels means "not labelled" beside a few ids.

    Small numbers, or more pixels than the highest has.
    """
    inside = (levels > 0) & (levels < levels[-1])
    if not 0 < inside.sum() <= _VOID_IDS:
        return False
    return bool(levels[inside].max() < 64 or counts[inside].sum() > counts[-1])
