"""Whether a folder of masks marks objects, backgrounds, or is no folder of masks at all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from refocus.data.images import keeps_size, orientation, read_image, read_mask
from refocus.errors import InputError
from refocus.records import Sample

log = logging.getLogger("refocus")

ASK, KEEP, INVERT = POLARITIES = ("ask", "keep", "invert")
MASK_RECORDS = "masks.json"  # beside masks that `refocus masks` wrote, which knows what it wrote
_LOOKED_AT = 16  # masks, evenly spaced in the listing
_BORDER = 0.5  # share of an image's frame that an object rarely covers, and a background often does
_EQUAL = 4 / 255  # mean difference between a mask and its image in grey, below which they are one
_SMALL = (64, 64)


def polarity(samples: Sequence[Sample], root: Path, parameter: str, answer: str) -> bool:
    """Whether to exchange object and background of all masks of a folder.

    Args:
        samples: the images, some of them with masks.
        root: the folder of the masks.
        parameter: what the caller calls it, for the messages.
        answer: "ask" looks at some masks and stops where most seem to be something else; "keep"
            and "invert" answer that question.

    Raises:
        InputError: most masks cover the frame, or are their images; or another answer.
    """
    if answer not in POLARITIES:
        raise InputError(f"‹mask_polarity› {answer}: legal are {', '.join(POLARITIES)}")
    pairs = tuple((s.image, s.mask) for s in samples if s.mask is not None)
    for image, mask in pairs[:1]:
        if image.samefile(mask):
            raise InputError(
                f"‹{parameter}› {root}: is the folder of the images; give the folder of their masks"
            )
    if answer == ASK and not (root / MASK_RECORDS).exists():
        places = np.linspace(0, len(pairs) - 1, min(_LOOKED_AT, len(pairs))).astype(int)
        _refuse_doubtful(tuple(pairs[i] for i in places), root, parameter)
    return answer == INVERT


@lru_cache(maxsize=64)  # a command scans a folder once for every model and protocol
def _refuse_doubtful(pairs: tuple[tuple[Path, Path], ...], root: Path, parameter: str) -> None:
    around, same, turned, read = 0, 0, 0, 0
    for image, mask in pairs:
        turned += keeps_size(orientation(image))
        try:
            values = read_mask(mask)[0].numpy()
        except InputError:  # said, or passed over, where the mask is used
            continue
        read += 1
        around += frame_share(values > 0.5) > _BORDER
        same += is_image(values, image)
    if turned:
        log.info(
            "%s: %d of %d images examined have an EXIF orientation that does not change their "
            "size; masks are taken to be drawn on the upright images",
            root,
            turned,
            len(pairs),
        )
    start = f"‹{parameter}› {root}: of {read} masks examined,"
    if 2 * same > read:
        raise InputError(
            f"{start} {same} look like their images; give the folder of masks, or "
            "‹mask_polarity=keep› where they are masks"
        )
    if 2 * around > read:
        raise InputError(
            f"{start} {around} cover most of the image's border, as where object and background "
            "are exchanged; give ‹mask_polarity=invert› to exchange them, or ‹mask_polarity=keep›"
        )


def frame_share(mask: np.ndarray) -> float:
    """Share of an image's frame, one pixel wide, that a bool mask `[H, W]` covers."""
    frame = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    return float(frame.mean())


def is_image(values: np.ndarray, image: Path) -> bool:
    """Whether a mask `[H, W]` in [0, 1] is the image itself in grey."""
    try:
        grey = read_image(image).convert("L").resize(_SMALL)
    except InputError:
        return False
    drawn = Image.fromarray((values * 255).astype(np.uint8)).resize(_SMALL)
    difference = np.asarray(grey, np.float32) - np.asarray(drawn, np.float32)
    return float(np.abs(difference).mean() / 255) < _EQUAL
