"""Strips of pictures: for each shift, what the models were shown and what they said."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from refocus.data import shifts
from refocus.data.transforms import eval_image
from refocus.evaluation.classify import read_predictions
from refocus.evaluation.suites import plain
from refocus.figures.html import tile_uri
from refocus.figures.pictures import to_picture
from refocus.figures.tables import Row
from refocus.records import Prediction, Sample
from refocus.results import Compared, SuiteEntry
from refocus.vit.classes import names_of
from refocus.vit.loading import preprocessing

_COUNT = 6  # pictures in a strip
_MANY, _STRIDE = 12, 7  # from so many levels on, every seventh, counted in a circle
UNCHANGED = "Unchanged images"
_LEVELS = {  # how the level of a picture is shown
    "size": ", {} % of the image",
    "rotation": ", {}°",
    "location": ", at {}",
}
Read = Callable[[Sample], Image.Image]


@dataclass(frozen=True)
class Said:
    """One model's answer."""

    text: str
    right: bool


@dataclass(frozen=True)
class Shot:
    """One picture as the models saw it, its true class (and the level), and their answers."""

    picture: str
    truth: str
    said: list[Said]


@dataclass(frozen=True)
class Strip:
    """A shift: its names, what it does, how accurate the models are on it, and examples."""

    kind: str
    title: str
    about: str
    number: str
    shots: list[Shot]


@dataclass(frozen=True)
class Scene:
    """Where the pictures of one suite and the answers on them are.

    records: folder of its records. entry: what was measured. samples: its images with masks. root:
    folder that names of images start from. models: title -> model, the original first; a single
    one may have the title "". seed: of the shifts. backgrounds: folder for the shift `real`.
    """

    records: Path
    entry: SuiteEntry
    samples: Sequence[Sample]
    root: Path
    models: dict[str, nn.Module]
    seed: int
    backgrounds: str | None = None


def title_of(kind: str) -> str:
    """The plain name of a shift."""
    return shifts.KINDS[kind].title if kind in shifts.KINDS else kind


def plain_rows(rows: Sequence[Row], suites: Sequence[str]) -> list[Row]:
    """Rows of accuracies under the plain names of shifts; the suite's name where there are more."""
    found = []
    for row in rows:
        suite = next((s for s in suites if row.name in (s, *_shifted(s))), "")
        kind = row.name.removeprefix(suite).removeprefix(": ").removesuffix(" (mean)")
        title = title_of(kind) if kind else UNCHANGED
        title += ", mean" if row.name.endswith(" (mean)") else ""
        name = f"{suite}: {title}" if len(suites) > 1 else title
        found.append(Row(name, row.measure, row.number, row.protocol, row.digits))
    return found


def _shifted(suite: str) -> Iterator[str]:
    for kind in shifts.KINDS:
        yield from (f"{suite}: {kind}", f"{suite}: {kind} (mean)")


def strips(scene: Scene) -> list[Strip]:
    """One strip for the unchanged images and one for each shift."""
    chosen = _chosen(scene)
    first = next(iter(scene.entry.protocols))
    found = [_strip(scene, "", [_View(first, "", plain, sample) for sample in chosen])]
    for kind in scene.entry.shifts:
        parts = shifts.shifts(
            scene.samples, kind, scene.seed, backgrounds=shifts.grounds(scene.backgrounds)
        )
        found.append(_strip(scene, kind, _views(kind, parts, chosen)))
    return [strip for strip in found if strip.shots]


@dataclass(frozen=True)
class _View:
    """One picture to show: the stage whose records answer it, its level, and how it is made."""

    stage: str
    level: str
    read: Read
    sample: Sample


def _views(
    kind: str, parts: list[tuple[shifts.Shift, list[Sample]]], chosen: list[Sample]
) -> list[_View]:
    """Several images, or one image at several levels."""
    read, usable = parts[0]
    some = [sample for sample in chosen if sample in usable]
    if len(parts) == 1:
        return [_View(kind, "", read, sample) for sample in some]
    levels = [parts[i][0] for i in _spread(len(parts))]
    return [_View(f"{kind}-{r.level}", r.level, r, sample) for sample in some[:1] for r in levels]


def _spread(levels: int) -> list[int]:
    """Positions of levels: evenly, or of a grid of places such that columns differ."""
    if levels <= _MANY:
        return _evenly(levels)
    return sorted(_STRIDE * i % levels for i in range(_COUNT))


def _evenly(total: int) -> list[int]:
    return sorted(set(np.linspace(0, total - 1, min(_COUNT, total)).astype(int).tolist()))


def _chosen(scene: Scene) -> list[Sample]:
    """Images spread evenly over those that every model answered as they are and in every shift."""
    stages = [next(iter(scene.entry.protocols))]
    for kind, shift in scene.entry.shifts.items():
        stages.append(f"{kind}-{shift.levels[0].level}" if shift.levels else kind)
    answered = (found.keys() for stage in stages for found in _answers(scene, stage).values())
    by_all = set.intersection(*map(set, answered))
    some = [s for s in scene.samples if _name(scene, s) in by_all]
    return [some[i] for i in _evenly(len(some))] if some else []


def _name(scene: Scene, sample: Sample) -> str:
    return sample.image.relative_to(scene.root).as_posix()


def _answers(
    scene: Scene, stage: str, wanted: Container[str] | None = None
) -> dict[str, dict[str, Prediction]]:
    """Title of each model -> image -> its answer in a stage; None: of all images."""
    found = {}
    for title in scene.models:
        which = "against" if title == "original" else "model"
        rows = read_predictions(scene.records / f"{stage}.{which}.jsonl")
        found[title] = {row.image: row for row in rows if wanted is None or row.image in wanted}
    return found


def _shots(scene: Scene, kind: str, views: list[_View]) -> list[Shot]:
    first = next(iter(scene.models.values()))
    shots, shown = [], {_name(scene, view.sample) for view in views}
    of_stage = {stage: _answers(scene, stage, shown) for stage in {v.stage for v in views}}
    for view in views:
        name = _name(scene, view.sample)
        answers = {title: found.get(name) for title, found in of_stage[view.stage].items()}
        given = {title: answer for title, answer in answers.items() if answer is not None}
        if len(given) < len(scene.models):  # an image that could not be read
            continue
        title, answer = next(iter(given.items()))
        truth = names_of(scene.models[title])[answer.label]
        said = [_said(t, a, scene.models[t]) for t, a in given.items()]
        at = _LEVELS[kind].format(view.level.lstrip("0") or "0") if view.level else ""
        shots.append(Shot(_seen(first, view.read(view.sample)), f"{truth}{at}", said))
    return shots


def _said(title: str, answer: Prediction, model: nn.Module) -> Said:
    text = f"{names_of(model)[answer.top5[0]]} ({answer.confidence:.0%})"
    return Said(f"{title}: {text}" if title else text, answer.right)


def _seen(model: nn.Module, image: Image.Image) -> str:
    config = preprocessing(model)
    return tile_uri(to_picture(eval_image(model)(image), config["mean"], config["std"]))


def _strip(scene: Scene, kind: str, views: list[_View]) -> Strip:
    shots = _shots(scene, kind, views)
    if not kind:
        about = "the images as they are"
        return Strip("", UNCHANGED, about, _accuracy(scene.entry.first.top1), shots)
    shift = scene.entry.shifts[kind]
    mean = " on average" if shift.levels else ""
    number = _accuracy(shift.top1, mean)
    return Strip(kind, title_of(kind), shift.about, number, shots)


def _accuracy(number: Compared, mean: str = "") -> str:
    row = Row("", "", number)
    if row.paired:
        return f"{row.against_text} % right before, {row.value_text} % after{mean}."
    return f"{row.value_text} % right{mean} (95 %: {row.interval_text})."
