"""One image file or one mask file -> pixels, with nothing guessed that could be wrong.

What a file may look like and what is refused stands in docs/inputs.md. A mask is float `[1, H, W]`
in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from refocus.errors import InputError, first_line
from refocus.records import Sample
from refocus.vit.inputs import check_flag, check_path, shown

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
ORIENTATION = 0x0112  # the EXIF tag
_MIRRORED_OR_TURNED = (2, 3, 4)  # EXIF orientations that keep the size


@dataclass(frozen=True)
class File:
    """An upright picture in the mode it is stored in.

    deep: 16 bits a channel, of which Pillow keeps the upper 8 where there are several channels.
    kind: format by content. shallow: 2 or 4 bits of grey, which Pillow spreads to 255.
    """

    picture: Image.Image
    deep: bool
    kind: str
    shallow: bool = False


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
        return opaque(_eight_bit(file, path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as an image ({first_line(error)})") from error


def orientation(path: Path) -> int:
    """The EXIF orientation of an image file, 1 where it has none or cannot be read."""
    return said_orientation(path) or 1


def said_orientation(path: Path) -> int | None:
    """The EXIF orientation that an image file states, None where it states none."""
    try:
        with Image.open(path) as file:
            _refuse_bomb(file.size)
            return int(file.getexif()[ORIENTATION])
    except (*UNREADABLE, TypeError, KeyError):
        return None


def size_tells(image: Path) -> bool:
    """Whether the size of a mask tells if it was drawn on the stored pixels or on those upright."""
    tag = orientation(image)
    if tag == 1:
        return True
    with Image.open(image) as file:
        return tag not in _MIRRORED_OR_TURNED and file.width != file.height


def _refuse_bomb(size: tuple[int, int]) -> None:
    """Stop at a picture so large that Pillow warns of it.

    Its warning is not made an error: filters of warnings are those of all threads, and threads that
    put them back in turns leave others behind.
    """
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and size[0] * size[1] > most:
        raise Image.DecompressionBombError(
            f"Image size ({size[0] * size[1]} pixels) exceeds limit of {most} pixels, could be "
            "decompression bomb DOS attack."
        )


def open_upright(path: Path, *, alone: bool = False) -> File:
    """A picture as it is stored, turned upright.

    alone: of several pages or frames the first is not taken; each may be an object of its own.

    Raises:
        one of UNREADABLE.
    """
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")  # a pipe or a device would never end
    with Image.open(path) as file:
        _refuse_bomb(file.size)
        tiles = repr(getattr(file, "tile", ()))
        deep, shallow = ";16" in tiles, "'L;2'" in tiles or "'L;4'" in tiles
        kind = _LOSSLESS if file.format == "WEBP" and _lossless(path) else str(file.format)
        if alone and (count := getattr(file, "n_frames", 1)) > 1:
            raise ValueError(f"it holds {count} pages or frames; save only the one you mean")
        file.load()
        _refuse_bomb(file.size)  # of some formats it is known by now
        return File(ImageOps.exif_transpose(file), deep, kind, shallow)


_LOSSLESS = "WEBP, lossless"


def _lossless(webp: Path) -> bool:
    """Whether the chunk that holds a WebP's pixels is the lossless one."""
    with webp.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8 and head[:4] not in (b"VP8L", b"VP8 ", b"ANIM"):
            size = int.from_bytes(head[4:], "little")
            file.seek(size + size % 2, 1)
    return head[:4] == b"VP8L"


def _refuse_long(path: Path, size: tuple[int, int]) -> None:
    if max(size) > _LONG * min(size):
        raise InputError(
            f"{path}: is {size[0]}x{size[1]} pixels; no side may be over {_LONG} times the other"
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
    eight = (values.astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)
    clear = picture.info.get("transparency")
    if clear is None:
        return Image.fromarray(eight)
    alpha = np.where(values == clear, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([eight, alpha]), "LA")


def opaque(picture: Image.Image) -> Image.Image:
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
            with object ids or void, or in colours; `invert` is neither True nor False.

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
    path, invert = check_path(path), check_flag("invert", invert)
    if image is not None and not isinstance(image, Image.Image):
        raise InputError(f"image: {shown(image)}; must be a PIL image, which read_image returns")
    try:
        values = mask_values(open_upright(path, alone=True), path)
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a mask ({first_line(error)})") from error
    mask = torch.from_numpy(values)[None]
    if image is not None and mask.shape[1:] != (image.height, image.width):
        raise InputError(
            f"{path}: the mask is {mask.shape[2]}x{mask.shape[1]} pixels, its image "
            f"{image.width}x{image.height}; the sizes must match"
            + (_TURNED if mask.shape[1:] == (image.width, image.height) else "")
        )
    hard = mask > 0.5
    if not hard.any() or hard.all():
        raise InputError(
            f"{path}: the mask is all {'foreground' if hard.any() else 'background'}; it must "
            "hold both"
        )
    return 1 - mask if invert else mask


def mask_of(sample: Sample, image: Image.Image | None = None) -> Tensor:
    """The mask of a sample that has one."""
    assert sample.mask is not None  # the caller chose samples with masks
    return read_mask(sample.mask, image, invert=sample.inverted)


_TURNED = " (`refocus masks --from png` turns masks of images that EXIF turns)"
_LEGAL = "must be 0/255 with soft values between, or 0/1; `refocus masks` converts other masks"


def mask_values(file: File, path: Path) -> np.ndarray:
    """Foreground `[H, W]` in [0, 1] from whichever channel says it."""
    picture = file.picture
    alpha = alpha_of(picture, path)
    if alpha is not None:
        left = numbers_left(picture, alpha)
        levels = np.unique(0 if left is None else left)
        if left is not None and levels[-1] in (255, 65535) and looks_like_void(left):
            raise InputError(
                f"{path}: has {levels[-1]:g} beside {listed(levels)} on a transparent background, "
                f"which look like object ids with void; {_LEGAL}"
            )
        return _levels(alpha, path)
    if picture.mode == "P":
        return _palette(picture, path)
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _levels(_deep_values(picture, path), path)
    if picture.mode in ("1", "L", "LA"):
        values = np.asarray(picture.convert("L"))
        if file.shallow and len(levels := np.unique(values)) > 2:
            raise InputError(
                f"{path}: its {len(levels)} levels of grey, of 2 or 4 bits, may be object ids or "
                f"soft values; {_LEGAL}"
            )
        return _levels(values, path, lossy=file.kind in LOSSY)
    colours = np.asarray(picture.convert("RGB"))
    if not _grey(colours):
        raise InputError(
            f"{path}: is in colour, like a photograph or a map of classes; a mask has one channel "
            f"({_LEGAL})"
        )
    return _levels(colours[..., 0], path, lossy=file.kind in LOSSY)


LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")  # formats whose noise looks like ids, and that keep none
_GREY = 8  # channels of a grey JPEG may differ by this much


def alpha_of(picture: Image.Image, path: Path) -> np.ndarray | None:
    """The alpha channel, uint8 `[H, W]`, where it cuts something out: then it is the mask.

    One that is nearly opaque throughout, as lossy formats leave it, says nothing.

    Raises:
        InputError: what it leaves over is drawn in black and white, as a mask is.
    """
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return None
    layers = _layers(picture)
    alpha = layers[..., 3]
    if alpha.min() >= min(128, alpha.max()):
        return None
    left = layers[alpha > 127, :3]
    extreme = (left < _GREY) | (left > 255 - _GREY)
    if len(left) and extreme.all() and left.min() < _GREY < left.max() and _grey(left):
        raise InputError(
            f"{path}: has a mask in black and white and another one in its transparency; save "
            "only the one you mean"
        )
    return alpha


def _layers(picture: Image.Image) -> np.ndarray:
    """Colours and alpha, uint8 `[H, W, 4]`; Pillow does not convert 16 bits with a clear value."""
    if not picture.mode.startswith("I"):
        return np.asarray(picture.convert("RGBA"))
    values = np.asarray(picture).astype(np.int64)
    grey = (values / 257).round().clip(0, 255)
    alpha = np.where(values == picture.info["transparency"], 0, 255)
    return np.dstack([grey, grey, grey, alpha]).astype(np.uint8)


def numbers_left(picture: Image.Image, alpha: np.ndarray) -> np.ndarray | None:
    """What a picture of one channel holds where it is not transparent, else 0.

    Indices of a palette, levels of grey; None for colours.
    """
    values = np.asarray(picture)
    if picture.mode == "LA":
        values = values[..., 0]
    return np.where(alpha > 127, values, 0) if values.ndim == 2 else None


def _grey(colours: np.ndarray) -> bool:
    """Whether the channels of colours `[..., 3]` differ no more than those of a grey JPEG."""
    return bool(np.ptp(colours.astype(np.int16), axis=-1).max() <= _GREY)


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
    """16-bit, 32-bit and floating-point masks as levels up to 255, not rounded: ids stay apart."""
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise InputError(f"{path}: its values are negative or not finite; {_LEGAL}")
    if picture.mode != "F" and 255 < values.max() <= 257:  # 1 of 255, if they were levels
        raise InputError(
            f"{path}: its values look like object ids (up to {values.max():g} of 16 bits); {_LEGAL}"
        )
    if picture.mode == "F" and values.max() <= 1:
        values = values * 255
    return np.asarray((values / (257 if values.max() > 255 else 1)).clip(0, 255))


def _levels(values: np.ndarray, path: Path, *, lossy: bool = False) -> np.ndarray:
    """Grey levels up to 255 -> [0, 1], where they can be nothing but a hard or a soft mask."""
    levels = np.unique(values)
    top = float(levels[-1])
    if top <= 1:
        return values.astype(np.float32)
    if top < _WHITE and looks_like_ids(levels):
        raise InputError(
            f"{path}: its values look like object ids (up to {top:g}, none near 255); {_LEGAL}"
        )
    if not lossy and looks_like_void(values):
        raise InputError(
            f"{path}: has {top:g} beside {listed(levels)}, which look like object ids with void; "
            f"{_LEGAL}"
        )
    return np.asarray(values, np.float32) / 255


_WHITE = 250  # a soft mask comes near full foreground somewhere
_FEW = 32  # levels of a soft mask that never does
_DARK = 64  # a soft edge passes through lighter levels on its way to white
_AREA = 0.02  # of the image, taken by an id on average
_COUNTED = 200  # ids without a gap end below; a soft mask of so many levels goes on to white
_FLAT = 0.5  # of the pixels of ids have their own value all around; of a soft edge hardly one
_HALF = (127, 128)  # what trimaps call undecided


def listed(levels: np.ndarray) -> str:
    """The first of the levels between background and the highest, in words."""
    inside = [f"{level:g}" for level in levels[:-1] if level > 0]
    return ", ".join(inside[:4]) + (", ..." if len(inside) > 4 else "")


def looks_like_ids(levels: np.ndarray) -> bool:
    """Whether sorted levels that end below white number objects, rather than grade one."""
    ids = levels[levels > 0]
    counted = len(ids) == ids[-1]  # 1, 2, 3, ... without a gap
    return bool(ids[-1] < 128 or len(ids) <= _FEW or counted)


def looks_like_void(values: np.ndarray) -> bool:
    """Whether the highest of the levels `[H, W]` of a mask means "not labelled" beside ids.

    Beside small numbers; beside 1, 2, 3, ... without a gap; or beside some levels with more pixels
    than the highest has, each of which fills an area, or that are flatter than it is, as what an
    outline encloses: a small object with a soft edge has many levels of a few pixels.
    """
    levels, counts = np.unique(values, return_counts=True)
    ids = levels[(levels > 0) & (levels < levels[-1])]
    if not len(ids):
        return False
    if ids[-1] < _DARK or (len(ids) > 1 and len(ids) == ids[-1] <= _COUNTED):
        return True
    if len(ids) > _FEW:
        return False
    inside = counts[(levels > 0) & (levels < levels[-1])]
    if inside.mean() > _AREA * counts.sum() and inside.sum() > counts[-1]:
        return True
    if ids[-1] >= _WHITE or (len(ids) == 1 and ids[0] in _HALF):  # noise, or a trimap
        return False
    flat = _flat(values)
    marked = (values > 0) & (values < levels[-1])
    return bool(flat[marked].mean() > max(_FLAT, flat[values == levels[-1]].mean()))


def fills_areas(values: np.ndarray, inside: np.ndarray) -> bool:
    """Whether most pixels `inside` (bool `[H, W]`) have their own value all around, as ids have."""
    return bool(inside.any() and _flat(values)[inside].mean() > _FLAT)


def _flat(values: np.ndarray) -> np.ndarray:
    """Which pixels `[H, W]` have their own value all around."""
    height, width = values.shape
    padded = np.pad(values, 1, mode="edge")
    shifts = [(y, x) for y in range(3) for x in range(3)]
    alike = [padded[y : y + height, x : x + width] == values for y, x in shifts]
    return np.asarray(np.all(alike, axis=0))
