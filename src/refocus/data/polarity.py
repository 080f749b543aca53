"""Whether a folder of masks marks objects, backgrounds, or is no folder of masks at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from refocus.data.images import read_image, read_mask, said_orientation, size_tells
from refocus.errors import InputError
from refocus.files import read_json
from refocus.fingerprints import State, of_file, state
from refocus.records import Sample
from refocus.vit.classes import plain

ASK, KEEP, INVERT = POLARITIES = ("ask", "keep", "invert")
MASK_RECORDS = "masks.json"  # beside masks that `refocus masks` wrote, which knows what it wrote
_LOOKED_AT = 16  # masks, evenly spaced in the listing
_BORDER = 0.5  # share of an image's frame that an object rarely covers, and a background often does
_EQUAL = 4 / 255  # mean difference between a mask and its image in grey, below which they are one
_SMALL = (64, 64)
Pairs = tuple[tuple[Path, Path], ...]  # images and their masks
States = tuple[State, ...]  # of these files: a person may write masks anew between two calls


def polarity(samples: Sequence[Sample], root: Path, parameter: str, answer: str) -> bool:
    """Whether to exchange object and background of all masks of a folder.

    Args:
        samples: the images, some of them with masks.
        root: the folder of the masks.
        parameter: what the caller calls it, for the messages.
        answer: "ask" looks at some masks and stops where most seem to be something else; "keep"
            and "invert" answer that question.

    Raises:
        InputError: most masks cover the frame, or are their images; an EXIF orientation leaves
            open what masks were drawn on; masks that `refocus masks` made for other images; or
            another answer.
    """
    if answer not in POLARITIES:
        raise InputError(f"‹mask_polarity› {answer}: choose one of {', '.join(POLARITIES)}")
    pairs = tuple((s.image, s.mask) for s in samples if s.mask is not None)
    for image, mask in pairs[:1]:
        if image.samefile(mask):
            raise InputError(
                f"‹{parameter}› {root}: is the folder of the images; give the folder of their masks"
            )
    if (root / MASK_RECORDS).exists():
        _refuse_other_images(pairs, root, parameter, _states([*pairs, (root / MASK_RECORDS,)]))
        return answer == INVERT
    _refuse_unclear_frames(pairs, root, parameter, _states(pairs))
    if answer == ASK:
        places = np.linspace(0, len(pairs) - 1, min(_LOOKED_AT, len(pairs))).astype(int)
        some = tuple(pairs[i] for i in places)
        _refuse_doubtful(some, root, parameter, _states(some))
    return answer == INVERT


def _states(files: Iterable[Iterable[Path]]) -> States:
    return tuple(state(file) for some in files for file in some)


@lru_cache(maxsize=64)
def _refuse_other_images(pairs: Pairs, root: Path, parameter: str, states: States) -> None:
    """Stop at a mask that was made for another image than the one of its name here.

    states: of all files, at last of the record of the masks. An image that it names, and that was
    not written since, is not read; a mask that somebody changed is of the image at hand.
    """
    written = states[-1][1]
    content: Any = read_json(root / MASK_RECORDS)
    rows = content.get("masks") if isinstance(content, dict) else None
    known = {
        plain(Path(row["mask"]).with_suffix("").as_posix()): row
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, dict)
        and all(isinstance(row.get(k), str) for k in ("mask", "image", "of"))
    }
    wrong = []
    for image, mask in pairs:
        row = known.get(plain(f"{mask.parent.name}/{mask.stem}"))
        if row is None or (_same(image, row["image"]) and image.stat().st_mtime_ns < written):
            continue
        if of_file(image) != row["of"] and of_file(mask) == row.get("digest"):
            wrong.append((image, mask, row["image"]))
    if wrong:
        image, mask, other = wrong[0]
        raise InputError(
            f"‹{parameter}› {root}: {len(wrong)} of {len(pairs)} masks were made for other images "
            f"than those of their names here; {mask} was made for {other} as it was then, not for "
            f"{image}; give the masks of these images, or make them with `refocus masks`"
        )


def _same(image: Path, recorded: str) -> bool:
    return image.resolve() == Path(recorded).resolve()


@lru_cache(maxsize=64)  # a command scans a folder once for every model and protocol
def _refuse_unclear_frames(pairs: Pairs, root: Path, parameter: str, _states: States) -> None:
    """Stop where a mask could be of the stored pixels as well as of the upright image.

    A mask that states an orientation of its own tells it.
    """
    unclear = [i for i, mask in pairs if not size_tells(i) and said_orientation(mask) is None]
    if unclear:
        raise InputError(
            f"‹{parameter}› {root}: {unclear[0]} carries an EXIF orientation; for {len(unclear)} "
            f"of {len(pairs)} images the size does not tell whether their masks were drawn "
            "upright or "
            "on the stored pixels; convert the masks with `refocus masks --from png` and "
            "‹orientation=upright› (most tools) or ‹orientation=raw›"
        )


@lru_cache(maxsize=64)
def _refuse_doubtful(pairs: Pairs, root: Path, parameter: str, _states: States) -> None:
    around, same, read = 0, 0, 0
    for image, mask in pairs:
        try:
            values = read_mask(mask)[0].numpy()
        except InputError:  # said, or passed over, where the mask is used
            continue
        read += 1
        around += frame_share(values > 0.5) > _BORDER
        same += is_image(values, image)
    start = f"‹{parameter}› {root}: of {read} masks examined,"
    if 2 * same > read:
        raise InputError(
            f"{start} {same} look like their images; give the folder of masks, or "
            "‹mask_polarity=keep› if they are masks"
        )
    if 2 * around > read:
        raise InputError(
            f"{start} {around} cover most of the image's border, as if object and background were "
            "swapped; give ‹mask_polarity=invert› to swap them, or ‹mask_polarity=keep›"
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
