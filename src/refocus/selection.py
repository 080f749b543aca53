"""What a run trains on and validates on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from refocus.errors import InputError
from refocus.images import pick_classes, pick_shots, scan, spread
from refocus.quality import RECORDS, scores
from refocus.recipe import Recipe
from refocus.records import Sample

log = logging.getLogger("refocus")


@dataclass(frozen=True)
class Selection:
    """train: the shots. select: images of classes not trained on, for the best epoch. check: images of all classes, for
    the question whether tuning did harm. No training image is in `select` or `check`.
    """

    train: list[Sample]
    select: list[Sample]
    check: list[Sample]


def choose_samples(recipe: Recipe, model: nn.Module) -> Selection:
    """Few-shot selection from the recipe's folders; every chosen image and mask has been read once."""
    samples = trusted(scan(recipe.images, model, masks=recipe.masks), recipe.masks, recipe.mask_score)
    labels = pick_classes(samples, recipe.classes, recipe.class_seed)
    train = pick_shots(samples, labels, recipe.shots, recipe.seed, skip_bad=recipe.skip_bad, fewer=recipe.fewer)
    if recipe.val is None:
        if recipe.val_masks is not None:
            raise InputError("--val-masks: --val is missing")
        rest = samples
        where = f"--images {recipe.images}"
    else:
        if recipe.val_masks is None:
            raise InputError("--val-masks: missing; validation images need masks as well")
        rest = trusted(scan(recipe.val, model, masks=recipe.val_masks, option="--val"), recipe.val_masks, recipe.mask_score)
        where = f"--val {recipe.val}"
    taken = {s.image.resolve() for s in train}
    rest = [s for s in rest if s.image.resolve() not in taken]
    trained = set(labels)
    held_out = [s for s in rest if s.label not in trained]
    select = spread(held_out or rest, recipe.val_images, recipe.seed, skip_bad=recipe.skip_bad)
    check = spread(rest, recipe.check_images, recipe.seed, skip_bad=recipe.skip_bad)
    if not select:
        raise InputError(f"{where}: no image is left to validate on; add images or give --val with --val-masks")
    if not held_out:
        log.warning("all classes are trained on, so the best epoch is chosen on other images of the same classes")
    return Selection(train, select, check)


def trusted(samples: list[Sample], masks: str | Path, least: float) -> list[Sample]:
    """Samples without those whose mask `refocus masks` scored below `least`, and without images that it found no mask for;
    masks of another origin carry no score and all stay.
    """
    known = scores(masks)
    if not known:
        return samples
    keyed = [(f"{s.image.parent.name}/{s.image.stem}", s) for s in samples]
    kept = [s for key, s in keyed if s.mask is not None and known.get(key, 1) >= least]
    if left := len(samples) - len(kept):
        log.info("%d of %d images left out: no mask, or a score below %g in %s", left, len(samples), least, Path(masks) / RECORDS)
    if not kept:
        raise InputError(f"--mask-score {least:g}: no mask in {masks} has that score; lower it or mend masks")
    return kept


def to_json(selection: Selection) -> dict[str, Any]:
    def rows(samples: list[Sample]) -> list[dict[str, Any]]:
        return [{"image": str(s.image.resolve()), "label": s.label, "mask": str(s.mask.resolve())} for s in samples if s.mask]

    return {"train": rows(selection.train), "select": rows(selection.select), "check": rows(selection.check)}


def from_json(content: dict[str, Any]) -> Selection:
    def samples(rows: list[dict[str, Any]]) -> list[Sample]:
        return [Sample(Path(r["image"]), r["label"], Path(r["mask"])) for r in rows]

    return Selection(*(samples(content[name]) for name in ("train", "select", "check")))
