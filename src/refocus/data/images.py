"""Images, masks and labels from folders; the few-shot selection; joint transforms.

A mask is float `[1, H, W]` in [0, 1].
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from refocus.errors import InputError

log = logging.getLogger("refocus")


_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # Pillow's own


# --- one file -----------------------------------------------------------------------------------


def read_image(path: Path) -> Image.Image:
    """An upright RGB image; EXIF rotation is applied, 16-bit greyscale keeps its range, of an
    animation the first frame.

    Raises:
        InputError: missing, truncated, not an image, or so large that decoding it could exhaust
            memory.
    """
    try:
        return _eight_bit(_upright(path)).convert("RGB")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image") from error
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as an image ({error})") from error


def _upright(path: Path) -> Image.Image:
    with warnings.catch_warnings(), Image.open(path) as file:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        file.load()
        return ImageOps.exif_transpose(file)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit grey to white where it converts; scale it instead."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray(
            (values / (257 if values.max() > 255 else 1)).round().clip(0, 255).astype(np.uint8)
        )
    return image


def read_mask(path: Path, image: Image.Image | None = None) -> Tensor:
    """A foreground mask `[1, H, W]` in [0, 1]: PNG with 0/255 (values between are soft), or 0/1.

    Raises:
        InputError: unreadable, of another size than `image`, without any foreground or background,
            or with object ids.
    """
    try:
        opened = _upright(path)
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as a mask ({error})") from error
    indexed = opened.mode == "P"  # of a palette the indices count, not their colours
    values = np.asarray(opened if indexed else _eight_bit(opened).convert("L"), dtype=np.float32)
    if 1 < values.max() < 128 or (indexed and values.max() > 1):
        raise InputError(
            f"{path}: its values look like object ids (up to {values.max():.0f}); legal are 0/255 "
            "with soft values between, or 0/1"
        )
    mask = torch.from_numpy(values / (255 if values.max() > 1 else 1))[None]
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
    return mask
