"""Shifted test sets as folders that any tool can read: the library's side of `refocus shifts`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refocus import fingerprints, locks, outputs
from refocus.data import shift_folders
from refocus.data import shifts as shifted
from refocus.data.folders import folder_samples
from refocus.data.sources.opened import opened_pair
from refocus.evaluation.settings import ShiftSettings
from refocus.masks.trust import masked
from refocus.processes import workers_for
from refocus.vit.inputs import check_flag, check_path, check_settings
from refocus.vit.loading import pick_device


@dataclass(frozen=True)
class ShiftFolder:
    """What `shifts` left in a folder."""

    folder: Path
    written: dict[str, int]  # kind -> number of images, over all levels
    skipped: dict[str, str]  # image below the folder -> why it could not be made


def shifts(
    images: str | Path,
    masks: str | Path,
    out: str | Path,
    settings: ShiftSettings | None = None,
    *,
    resume: bool = True,
) -> ShiftFolder:
    """Make distribution shifts from images and masks, each as a folder of images.

    Other backgrounds, as in ImageNet-9 (Xiao et al., ICLR 2021); the object moved, scaled and
    turned, as in SI-Score (Djolonga et al., CVPR 2021). A kind is `out/KIND/CLASS/STEM.png`, one
    with several levels `out/KIND/LEVEL/CLASS/STEM.png`; `evaluate` gives the same answers on it as
    on shifts that are made on the fly.

    Args:
        images: ImageFolder, CLASS/FILE.
        masks: foreground masks, CLASS/FILE-STEM.png.
        out: folder for the shifts.
        settings: which; without it, as `refocus shifts` does.
        resume: skip what `out` holds already; else it must be a new folder.

    Returns:
        How many images of each kind `out` holds, and what could not be made.

    Raises:
        InputError: the input cannot be used, or too few masks for a kind; nothing is written then.

    Examples:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> example = write("example", per_class=2)
        >>> made = refocus.shifts(example.images, example.masks, "shifts")
        >>> made.written
        {'only-fg': 20, 'only-bg': 20, 'mixed-same': 20, 'mixed-rand': 20}
    """
    settings, resume = check_settings(settings, ShiftSettings), check_flag("resume", resume)
    images, masks = check_path(images, "images"), check_path(masks, "masks")
    found = opened_pair(images, masks)
    out, images, shapes = check_path(out, "out"), found.images, found.masks
    assert shapes is not None  # they are named
    samples = masked(
        folder_samples(images, shapes, mask_polarity=settings.mask_polarity),
        shapes,
        settings.mask_score,
    )
    backgrounds = shifted.grounds(settings.backgrounds)
    for kind in settings.kinds:  # what cannot be made is said before anything is written
        shifted.shifts(samples, kind, settings.seed, backgrounds=backgrounds)
    kept = _kept(images, shapes, settings)
    read = {"‹images›": images, "‹masks›": shapes, "‹backgrounds›": settings.backgrounds}
    folder = outputs.resumable(out, resume, kept, apart=read)
    with locks.released(folder):
        content = shift_folders.write(
            samples,
            folder,
            settings.kinds,
            seed=settings.seed,
            workers=workers_for(settings.workers, pick_device("auto").type),
            backgrounds=backgrounds,
        )
    return ShiftFolder(folder, content["written"], content["skipped"])


def _kept(images: Path, masks: Path, settings: ShiftSettings) -> dict[str, Any]:
    """What decides each image, for a later call on the same folder; further kinds may be added."""
    kept: dict[str, Any] = {
        "images": str(images.resolve()),
        "masks": str(masks.resolve()),
        # whose background an image gets depends on the listing
        "files": {"images": fingerprints.of_tree(images), "masks": fingerprints.of_tree(masks)},
        "seed": settings.seed,
        "mask_score": settings.mask_score,
        "mask_polarity": settings.mask_polarity,
    }
    if settings.backgrounds:
        place = Path(settings.backgrounds).expanduser()
        kept |= {"backgrounds": [str(place.resolve()), fingerprints.of_tree(place)]}
    return kept
