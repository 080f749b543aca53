"""Scores kept beside a folder of masks, and which masks are trusted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image

from refocus.errors import InputError
from refocus.files import read_json
from refocus.records import Sample
from refocus.vit.classes import plain

log = logging.getLogger("refocus")

RECORDS = "masks.json"
LEAST_PIXELS, _SIDE = 520, 224
_NAMED = 5  # classes that a notice lists


def digest(file: Path) -> str:
    """A short fingerprint of a file's content."""
    return blake2b(file.read_bytes(), digest_size=8).hexdigest()


def scores(folder: str | Path) -> dict[str, float]:
    """Score by "CLASS/STEM" of a folder that `refocus masks` wrote.

    Empty for masks of any other origin.

    A mask that somebody changed since then counts in full.
    """
    path = Path(folder).expanduser() / RECORDS
    if not path.exists():
        return {}
    content: Any = read_json(path)
    try:
        found = {}
        for r in content["masks"]:
            file = path.parent / r["mask"]
            changed = file.exists() and digest(file) != r["digest"]
            key = plain(Path(r["mask"]).with_suffix("").as_posix())
            found[key] = 1.0 if changed else float(r["score"])
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a record that `refocus masks` wrote ({error!r}); remove it to use all "
            "masks"
        ) from error


def trusted(samples: list[Sample], masks: str | Path, least: float) -> list[Sample]:
    """Samples without those whose mask `refocus masks` scored below `least`.

    Also without images that it found no mask for; masks of another origin carry no score and all
    stay.
    """
    known = scores(masks)
    if not known:
        return samples
    keyed = [(plain(f"{s.image.parent.name}/{s.image.stem}"), s) for s in samples]
    kept = [s for key, s in keyed if s.mask is not None and known.get(key, 1) >= least]
    say_left_out(samples, kept, f"no mask, or a score below {least:g} in {Path(masks) / RECORDS}")
    if not kept:
        raise InputError(
            f"‹mask_score› {least:g}: no mask in {masks} has that score; lower it or fix some masks"
        )
    return kept


def say_left_out(samples: Sequence[Sample], kept: Sequence[Sample], why: str) -> None:
    """Say how many of some samples are left out, and which classes lose all of theirs."""
    left = len(samples) - len(kept)
    if not left:
        return
    staying = {s.image.parent for s in kept}
    gone = dict.fromkeys(s.image.parent.name for s in samples if s.image.parent not in staying)
    names = ", ".join([*map(repr, list(gone)[:_NAMED]), *["..."] * (len(gone) > _NAMED)])
    none = f" (none is left of class {names})" if len(gone) == 1 else ""
    if len(gone) > 1:
        none = f" (none is left of {len(gone)} classes: {names})"
    log.info("%d of %d images left out: %s%s", left, len(samples), why, none)


def large_enough(samples: list[Sample], masks: str | Path) -> list[Sample]:
    """Samples without those whose mask was found and is under 520 pixels (the published code).

    Pixels of an image whose shorter side is 224, the size at which the code keeps its masks. Masks
    that people made all stay, as there.
    """
    path = Path(masks).expanduser() / RECORDS
    if not path.exists():
        return samples
    rows = {str(Path(r["mask"]).with_suffix("")): r for r in read_json(path)["masks"]}

    def stays(sample: Sample) -> bool:
        row = rows.get(f"{sample.image.parent.name}/{sample.image.stem}")
        if sample.mask is None or row is None or row["agreement"] is None:
            return True
        with Image.open(sample.mask) as mask:
            longer = max(mask.size) / min(mask.size)
        return bool(row["area"] * _SIDE**2 * longer >= LEAST_PIXELS)

    kept = [s for s in samples if stays(s)]
    if not kept:
        raise InputError(f"‹masks› {path.parent}: all masks are under {LEAST_PIXELS} pixels")
    if left := len(samples) - len(kept):
        log.info("%d masks under %d pixels left out", left, LEAST_PIXELS)
    return kept


def masked(samples: Sequence[Sample], masks: Path, mask_score: float) -> list[Sample]:
    """The samples whose mask is there and trusted."""
    kept = trusted(list(samples), masks, mask_score)
    found = [s for s in kept if s.mask is not None]
    if not found:
        raise InputError(f"‹masks› {masks}: holds no mask for any of the images")
    say_left_out(kept, found, "no mask")
    return found
