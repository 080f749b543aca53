"""What a run trains on and validates on."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from refocus import records
from refocus.data.folders import scan
from refocus.data.sampling import pick_classes, pick_shots, spread
from refocus.data.trained import gone_images, trained_images, without
from refocus.data.trained import say_left_out as say_trained
from refocus.errors import InputError
from refocus.fingerprints import Copies, of_file
from refocus.masks.trust import large_enough, say_left_out, trusted
from refocus.records import Sample
from refocus.runs import SELECTION
from refocus.tuning.recipe import Recipe

log = logging.getLogger("refocus")
_PART = 4  # of the images left, at most one in so many chooses the epoch


@dataclass(frozen=True)
class Selection:
    """train: the shots.

    select: images of classes not trained on, for the best epoch and the rate. check: images of all
    classes, for the question whether tuning did harm. No image is in two of the three, nor is a
    copy of one.
    """

    train: list[Sample]
    select: list[Sample]
    check: list[Sample]

    @property
    def files(self) -> set[Path]:
        """All images and masks."""
        samples = [*self.train, *self.select, *self.check]
        return {f.resolve() for s in samples for f in (s.image, s.mask) if f is not None}


def choose_samples(recipe: Recipe, model: nn.Module, *, shown: bool = True) -> Selection:
    """Few-shot selection from the recipe's folders.

    Every chosen image and mask has been read once. shown: with a progress bar.
    """
    how = {"skip_bad": recipe.skip_bad, "shown": shown}
    samples = _usable(
        recipe,
        scan(recipe.images, model, masks=recipe.masks, mask_polarity=recipe.mask_polarity),
        recipe.masks,
    )
    if recipe.skip_bad:  # a class without a mask is none to train on
        masked = [s for s in samples if s.mask is not None] or samples
        say_left_out(samples, masked, "no mask")
        samples = masked
    labels = pick_classes(samples, recipe.classes, recipe.class_seed)
    train = pick_shots(samples, labels, recipe.shots, recipe.seed, fewer=recipe.fewer, **how)
    where, rest = _rest(recipe, model, samples)
    rest = _never_trained(recipe, where, _without(rest, train))
    trained = set(labels)
    held_out = [s for s in rest if s.label not in trained]
    # the check needs more: what it shows depends on their number, the best epoch hardly does
    most = min(recipe.val_images, max(1, len(rest) // _PART))
    if recipe.protocol == "paper":
        most = recipe.val_images
    select = spread(held_out or rest, most, recipe.seed, **how)
    left = _without(rest, select)
    check = _distinct(spread(left, recipe.check_images, recipe.seed, **how))
    if not select:
        raise InputError(
            f"{where}: no image is left to validate on; add images or give ‹val› with ‹val_masks›"
        )
    if recipe.do_no_harm and not check:
        raise InputError(
            f"{where}: no image is left to check for harm; add images, give ‹val› with "
            "‹val_masks›, or give ‹do_no_harm=False›"
        )
    if not held_out:
        log.warning(
            "all classes are trained on, so the best epoch is chosen on other images of the same "
            "classes"
        )
    return Selection(train, select, check)


def _rest(recipe: Recipe, model: nn.Module, samples: list[Sample]) -> tuple[str, list[Sample]]:
    """What may validate: `samples` of the recipe's images, or its own folder; with its name."""
    if recipe.val is None:
        if recipe.val_masks is not None:
            raise InputError("‹val_masks›: ‹val› is missing")
        return f"‹images› {recipe.images}", samples
    if recipe.val_masks is None:
        raise InputError("‹val_masks›: missing; validation images need masks as well")
    polarity = recipe.mask_polarity
    every = scan(recipe.val, model, masks=recipe.val_masks, parameter="val", mask_polarity=polarity)
    return f"‹val› {recipe.val}", _usable(recipe, every, recipe.val_masks)


def _usable(recipe: Recipe, samples: list[Sample], masks: str | Path) -> list[Sample]:
    """Those whose mask is trusted and, in the paper's protocol, not too small."""
    kept = trusted(samples, masks, recipe.mask_score)
    return large_enough(kept, masks) if recipe.protocol == "paper" else kept


def _without(samples: list[Sample], taken: list[Sample]) -> list[Sample]:
    """Those that are none of the taken ones, nor copies of one under another name."""
    known = Copies(s.image for s in taken)
    left = [s for s in samples if s.image not in known]
    twice = len(samples) - len(left) - sum(s.image.resolve() in known.paths for s in samples)
    if twice:
        log.warning(
            "%d images are copies of images that are used already, under other names: left out",
            twice,
        )
    return left


def _never_trained(recipe: Recipe, where: str, samples: list[Sample]) -> list[Sample]:
    """Without what earlier runs trained the recipe's model on: these images cannot judge it."""
    ref = str(recipe.model)
    trained, gone = trained_images(ref), gone_images(ref)
    left = without(samples, trained, where, gone)
    say_trained({where: (len(samples) - len(left), len(samples))}, trained, gone)
    return left


def _distinct(samples: list[Sample]) -> list[Sample]:
    """One of each photo: counted twice it would make a promise look surer than it is."""
    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(of_file(sample.image), sample)
    if twice := len(samples) - len(first):
        log.warning("%d images for the check are copies of others: left out", twice)
    return list(first.values())


def as_json(selection: Selection) -> dict[str, Any]:
    """What `selection.json` holds."""

    def rows(samples: list[Sample]) -> list[dict[str, Any]]:
        return [
            {
                "image": os.path.abspath(s.image),  # a link may lead out of its class folder
                "label": s.label,
                "mask": os.path.abspath(s.mask),
                **({"inverted": True} if s.inverted else {}),
            }
            for s in samples
            if s.mask
        ]

    return {
        "train": rows(selection.train),
        "select": rows(selection.select),
        "check": rows(selection.check),
    }


@dataclass(frozen=True)
class _Row:
    image: str
    label: int
    mask: str
    inverted: bool = False


@dataclass(frozen=True)
class _Rows:
    """selection.json."""

    train: list[_Row]
    select: list[_Row]
    check: list[_Row]


def from_json(content: Any, source: str | Path = SELECTION) -> Selection:
    """What `as_json` made, back as samples.

    Raises:
        InputError: another shape, no image to train on, or a label below 0; names `source`.
    """
    rows = records.from_json(content, _Rows, source)

    def samples(some: list[_Row]) -> list[Sample]:
        if any(row.label < 0 for row in some):
            raise InputError(f"{source}: a label is below 0; must be class indices")
        return [
            Sample(Path(row.image), row.label, Path(row.mask), inverted=row.inverted)
            for row in some
        ]

    if not rows.train or not rows.select:
        raise InputError(f"{source}: names no image to train on, or none to validate on")
    return Selection(samples(rows.train), samples(rows.select), samples(rows.check))


def refuse_labels(selection: Selection, classes: int, source: str | Path) -> None:
    """Stop where a label is none of the model's.

    Raises:
        InputError: names `source` and the label.
    """
    labels = {s.label for some in (selection.train, selection.select) for s in some}
    if (highest := max(labels | {s.label for s in selection.check})) >= classes:
        raise InputError(
            f"{source}: label {highest}, but the model has {classes} outputs; must be 0 to "
            f"{classes - 1}"
        )
