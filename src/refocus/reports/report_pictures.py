"""Pictures of a report: shifted images, and images by what became of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from torch import Tensor, nn

from refocus import outputs
from refocus.data import shifts
from refocus.data.images import mask_of, read_image
from refocus.errors import InputError
from refocus.evaluation import plan as plans
from refocus.evaluation.classify import read_predictions
from refocus.evaluation.suites import SUITES, plain
from refocus.files import read_json
from refocus.progress import track
from refocus.records import Sample
from refocus.reports import gallery
from refocus.reports.strips import Scene, Strip, strips
from refocus.reports.told import Told
from refocus.vit.classes import class_folder_names
from refocus.vit.families import view

log = logging.getLogger("refocus")


def shift_strips(told: Told, models: dict[str, nn.Module]) -> list[Strip]:
    """Of the first suite with shifts."""
    for name, entry in told.suites.items():
        if not entry.shifts:
            continue
        kept = told.folder / outputs.SETTINGS
        plan = plans.plan_of(read_json(kept), kept)
        last = list(models.values())[-1]  # the tuned one, or the only one
        # with every one, as folders name the outputs of those without names
        tests = [plan.open(name, model) for model in models.values()][-1]
        samples = plan.masked_samples(name, tests.samples)
        shown = models if len(models) > 1 else {"": last}
        scene = Scene(
            told.folder / "records" / name,
            entry,
            samples,
            tests.root,
            shown,
            told.evaluation.seed,
            str(plan.backgrounds) if plan.backgrounds else None,
        )
        return strips(scene)
    return []


@dataclass(frozen=True)
class Shown:
    """A group of images of one outcome, as pictures."""

    group: gallery.Group
    cards: list[gallery.Card]


@dataclass(frozen=True)
class Gallery:
    """Images of one suite under one shift, by what became of them."""

    title: str
    groups: list[Shown]


def galleries(told: Told, models: dict[str, nn.Module], *, brief: bool = False) -> list[Gallery]:
    """Corrected, spoiled and unchanged images of the first suite of the user's own.

    As they are, and with swapped backgrounds; brief: the last of these alone, and what changed.
    """
    own = [name for name, entry in told.suites.items() if entry.protocols and name not in SUITES]
    try:
        for model in models.values():
            view(model)
    except InputError as error:
        log.warning("no pictures: %s", error)
        return []
    return _galleries_of(own[0], told, models, brief=brief) if own else []


def _galleries_of(
    name: str, told: Told, models: dict[str, nn.Module], *, brief: bool
) -> list[Gallery]:
    kept = told.folder / outputs.SETTINGS
    plan = plans.plan_of(read_json(kept), kept)
    entry = told.suites[name]
    opened = {which: plan.open(name, model) for which, model in models.items()}
    tests = opened["tuned"]
    every = zip(*(t.samples for t in opened.values()), strict=True)
    labels = {same[0].image: [s.label for s in same] for same in every}
    masked = plan.masked_samples(name, tests.samples)
    trusted = {s.image for s in masked}
    stages: list[tuple[str, str, Callable[[Sample], Image.Image]]] = [
        (next(iter(entry.protocols)), "unchanged", plain)
    ]
    if "mixed-rand" in entry.shifts:
        swap = shifts.shifts(masked, "mixed-rand", told.evaluation.seed)[0][0]
        stages.append(("mixed-rand", "on other-class backgrounds", swap))
    by_name = {s.image.relative_to(tests.root).as_posix(): s for s in tests.samples}
    folders = class_folder_names(models["tuned"])

    def card(image: str, read: Callable[[Sample], Image.Image]) -> gallery.Card:
        sample = by_name[image]
        mask = _mask(sample) if sample.image in trusted else None
        shown = gallery.tiles(models, read(sample), mask, labels[sample.image])
        return gallery.Card(image, folders[sample.label], shown)

    found = []
    for stage, title, read in stages[-1:] if brief else stages:
        against, model = (
            read_predictions(told.folder / "records" / name / f"{stage}.{which}.jsonl")
            for which in ("against", "model")
        )
        groups = [
            Shown(group, [card(image, read) for image in track(group.shown, f"pictures {title}")])
            for group in gallery.outcomes(against, model)[: 2 if brief else None]
        ]
        found.append(Gallery(f"Images of {name}, {title}", groups))
    return found


def _mask(sample: Sample) -> Tensor | None:
    """An image's mask where it has a usable one."""
    try:
        return mask_of(sample, read_image(sample.image)) if sample.mask else None
    except InputError:
        return None
