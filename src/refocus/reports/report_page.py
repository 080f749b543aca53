"""What a report says: headline, facts, tables, charts and pictures, as HTML and as Markdown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor, nn

from refocus import outputs
from refocus.data import shifts
from refocus.data.images import mask_of, read_image
from refocus.errors import InputError
from refocus.evaluation import plan as plans
from refocus.evaluation.classify import read_predictions
from refocus.evaluation.suites import PROTOCOLS, SUITES, plain
from refocus.figures import charts
from refocus.figures.escape import inline
from refocus.figures.glossary import words
from refocus.figures.html import page
from refocus.figures.tables import KeyNumber, Row, accuracy_rows, markdown, other_rows
from refocus.files import read_json
from refocus.progress import track
from refocus.records import Sample
from refocus.reports import gallery
from refocus.reports.settings import HELD_OUT
from refocus.reports.strips import Scene, Strip, plain_rows, strips, title_of
from refocus.results import Classification, Compared, Estimate, Evaluation, GroupChange, SuiteEntry
from refocus.tuning.recipe import Recipe
from refocus.tuning.results import TuneResults
from refocus.tuning.selection import Selection
from refocus.tuning.verdict import mixture
from refocus.vit.classes import class_folder_names
from refocus.vit.families import view

log = logging.getLogger("refocus")
LABELS = ("original", "tuned")
_AXES = {
    "size": "bounding box of the object, % of the image",
    "rotation": "rotation, degrees counter-clockwise",
}
_WORDS = (
    "accuracy (top-1)",
    "own-class background",
    "other-class background",
    "BG-gap",
    "relevance",
    "relevance on the background",
    "do-no-harm rule",
    "tolerance",
    "check images",
    "held-out images",
    "share",
    "95 % interval",
    "calibration error",
    "protocol",
)
_ENDS = 10  # classes shown that gain most, and that lose most
Suites = Mapping[str, SuiteEntry]


@dataclass(frozen=True)
class Tuning:
    """What a tuning run recorded of itself."""

    recipe: Recipe
    selection: Selection
    results: TuneResults
    probes: str  # its page of probes, or empty

    @property
    def unchanged(self) -> bool:
        """Whether the original was kept, so that there is nothing to compare."""
        return self.results.kept_original


@dataclass(frozen=True)
class Told:
    """What a report is about: an evaluation in its folder, and perhaps the run that it measures."""

    folder: Path
    evaluation: Evaluation
    tuning: Tuning | None
    changed: str = ""  # which model is another than the one that was measured

    @property
    def suites(self) -> Suites:
        """Name -> what was measured on it."""
        return self.evaluation.suites


def html(told: Told, models: dict[str, nn.Module]) -> str:
    """The whole page; models by their names on it, the original first."""
    suites, tuning = told.suites, told.tuning
    rows = accuracy_rows(suites)
    paired = told.evaluation.against is not None
    return page(
        "report.html.j2",
        headline=_headline(told),
        numbers=key_numbers(suites),
        facts=_facts(told),
        recipe=tuning.recipe.to_dict() if tuning else {},
        paired=paired,
        accuracies=rows,
        others=other_rows(suites),
        chart=charts.accuracies(plain_rows(rows, list(suites)), LABELS) if rows else None,
        shifts={kind: s.about for entry in suites.values() for kind, s in entry.shifts.items()},
        strips=_strips(told, models),
        protocols=PROTOCOLS if any(name in SUITES for name in suites) else {},
        curves=_curves(suites),
        trained=_trained_rows(suites),
        groups=_group_rows(suites),
        classes=_classes(suites),
        probes=tuning.probes if tuning else "",
        galleries=galleries(told, models) if paired else [],
        words=words(*_WORDS),
        tile_columns=4,
    )


def text(told: Told) -> str:
    """The same as Markdown, without pictures."""
    headline = _headline(told)
    said = (headline.title, headline.verdict, headline.more, headline.caution)
    title, *paragraphs = map(inline, said)
    parts = [f"# {title}", *paragraphs, _key_lines(told.suites)]
    for title, rows in (
        ("Accuracy (top-1, %)", accuracy_rows(told.suites)),
        ("Background, maps and calibration", other_rows(told.suites)),
    ):
        parts += [f"## {title}", markdown(rows)] if rows else []
    facts = "\n".join(f"- {key}: {inline(value)}" for key, value in _facts(told).items())
    parts += ["## What was done", facts]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _key_lines(suites: Suites) -> str:
    return "\n".join(
        f"- {inline(n.name)}: {inline(n.value)} ({inline(n.detail)})" for n in key_numbers(suites)
    )


# --- words --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Headline:
    title: str
    verdict: str  # one sentence
    more: str  # how sure it is, and what would make it surer
    caution: str


def _headline(told: Told) -> _Headline:
    title, verdict, more = f"Evaluation of {told.evaluation.model}", _measured(told.suites), ""
    if told.evaluation.against is not None:
        title = "Before and after"
    if told.tuning:
        shots, results = len(told.tuning.selection.train), told.tuning.results
        title = f"Tuned with {shots} images of {len(results.trained_classes)} classes"
        if told.tuning.unchanged:
            title = "Nothing changed: the original model was kept"
        first, _, more = _verdict(results).partition(". ")
        verdict = first.removesuffix(".") + "."
    caution = ""
    if told.tuning and told.tuning.unchanged and told.evaluation.against is None:
        caution = (
            f"Tuning with {len(told.tuning.selection.train)} images was tried, and its weights "
            "were not kept. Only the original was measured: every number here is its own."
        )
    elif HELD_OUT in told.suites:
        caution = (
            "These images were not trained on, but some of them chose the best epoch and the "
            "weights that were kept. Images that the run never saw are a stronger test: "
            "`refocus report RUN --on NAME=IMAGES --masks NAME=MASKS`."
        )
    return _Headline(title, verdict, more, caution)


def _verdict(results: TuneResults) -> str:
    """The run's own, and what was kept where it was overruled."""
    sentence = results.verdict.sentence
    if results.chosen_share == results.advised_share:
        return sentence
    return (
        f"{sentence} The do-no-harm rule was switched off: this model has "
        f"{mixture(results.chosen_share)}."
    )


def _measured(suites: Suites) -> str:
    """What an evaluation found, of the suites of which accuracy was measured."""
    found = [
        _said(name, entry.first.top1, "unchanged images")
        for name, entry in suites.items()
        if entry.protocols
    ]
    found += [
        _said(name, entry.shifts["mixed-rand"].top1, "other-class backgrounds")
        for name, entry in suites.items()
        if "mixed-rand" in entry.shifts
    ]
    return f"{'; '.join(found[:2])}." if found else ""


def _said(suite: str, number: Compared, where: str) -> str:
    row = Row(suite, "", number)
    if not row.paired:
        return f"Accuracy on {where} of {suite} is {row.value_text} % (95 %: {row.interval_text})"
    if row.decided:
        word = "rises" if row.decided > 0 else "falls"
        numbers = f"from {row.against_text} to {row.value_text} %"
        return f"Accuracy on {where} of {suite} {word} {numbers}"
    numbers = f"{row.against_text} to {row.value_text} %, which may be chance"
    return f"Accuracy on {where} of {suite} changes from {numbers}"


def key_numbers(suites: Suites) -> list[KeyNumber]:
    """The numbers at the top: accuracy as it is and on other backgrounds, relevance outside."""
    found = []
    several = len(suites) > 1
    for name, entry in suites.items():
        of = f" ({name})" if several else ""
        if entry.protocols:
            found.append(key_number(f"accuracy on unchanged images{of}", entry.first.top1, " %"))
        if "mixed-rand" in entry.shifts:
            title = f"accuracy on other-class backgrounds{of}"
            found.append(key_number(title, entry.shifts["mixed-rand"].top1, " %"))
        if share := entry.maps.get("background_share"):
            title = f"of the relevance lies on the background{of}"
            found.append(key_number(title, share, "", digits=2))
    return found[:3]


def key_number(name: str, number: Compared, unit: str, digits: int = 1) -> KeyNumber:
    """One number as it is shown on top: before and after where there are both."""
    row = Row("", "", number, digits=digits)
    if not row.paired:
        return KeyNumber(f"{row.value_text}{unit}", name, f"95 %: {row.interval_text}")
    points = " points" if unit else ""
    return KeyNumber(
        f"{row.against_text} → {row.value_text}{unit}",
        name,
        f"change: {row.difference_text}{points} (95 %: {row.difference_interval_text})",
    )


def _facts(told: Told) -> dict[str, str]:
    facts = {
        "model": told.evaluation.model,
        "compared with": told.evaluation.against or "-",
        "seed of the evaluation": str(told.evaluation.seed),
    }
    if told.tuning:
        recipe, selection, results = (
            told.tuning.recipe,
            told.tuning.selection,
            told.tuning.results,
        )
        facts |= {
            "objective": recipe.objective,
            "images trained on": f"{len(selection.train)} ({recipe.shots} each of "
            f"{len(results.trained_classes)} classes)",
            "validated on": f"{len(selection.select)} images for the epoch, "
            f"{len(selection.check)} for the do-no-harm rule",
            "epochs": f"{recipe.epochs}, best {results.best_epoch}",
            "learning rate": f"{results.lr:g}",
            "seed of the run": str(recipe.seed),
        }
    if told.changed:
        facts["changed since"] = told.changed
    versions = outputs.manifest_of(told.folder).environment
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return facts


# --- tables and charts --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curve:
    title: str
    about: str
    n: int
    chart: charts.Chart


def _curves(suites: Suites) -> list[_Curve]:
    found = []
    for name, entry in suites.items():
        for kind, shift in entry.shifts.items():
            if not shift.levels:
                continue
            chart = (
                charts.places(shift, LABELS)
                if kind == "location"
                else charts.curve(shift, _AXES[kind], LABELS)
            )
            n = shift.top1.model.n
            found.append(_Curve(f"{title_of(kind)} ({name})", shift.about, n, chart))
    return found


def _parts(suites: Suites) -> Iterator[tuple[str, Classification]]:
    """Every suite as it is, and every shift of it without levels."""
    for name, entry in suites.items():
        if entry.protocols:
            yield name, entry.first
        for kind, shift in entry.shifts.items():
            if shift.answers:
                yield f"{name}: {kind}", shift.answers


def _trained_rows(suites: Suites) -> list[Row]:
    """Classes tuned on, and never tuned on."""
    return [
        _change_row(title, change)
        for title, answers in _parts(suites)
        for change in answers.trained_changes
    ]


def _group_rows(suites: Suites) -> list[Row]:
    """Of each suite the group with the lowest accuracy first."""
    rows = []
    for name, entry in suites.items():
        if not entry.protocols:
            continue
        changes = {change.name: change for change in entry.first.group_changes}
        for group in entry.first.groups:
            number = Compared(group.top1)
            if change := changes.get(group.name):
                against = Estimate(change.against, None, change.change.top1.n)
                number = Compared(group.top1, against, change.change.top1)
            rows.append(Row(name, group.name, number))
    return rows


def _change_row(suite: str, change: GroupChange) -> Row:
    top1 = change.change.top1
    ours, theirs = (Estimate(value, None, top1.n) for value in (change.model, change.against))
    return Row(suite, change.name, Compared(ours, theirs, top1))


def class_rows(suites: Suites) -> list[Row]:
    """The change of every class."""
    return [
        _change_row(name, change)
        for name, entry in suites.items()
        if entry.protocols
        for change in entry.first.class_changes
    ]


@dataclass(frozen=True)
class _Classes:
    """The classes that gain and lose most in one suite."""

    suite: str
    gained: int
    lost: int
    same: int
    decided: int
    chart: charts.Chart | None


def _classes(suites: Suites) -> _Classes | None:
    """Of the first suite that has classes."""
    for name, entry in suites.items():
        changes = entry.first.class_changes if entry.protocols else ()
        rows = [change for change in changes if change.change.top1.interval]
        if not rows:
            continue
        moved = [row for row in rows if row.gain]
        both_ends = moved if len(moved) <= 2 * _ENDS else moved[:_ENDS] + moved[-_ENDS:]
        return _Classes(
            suite=name,
            gained=sum(row.gain > 0 for row in rows),
            lost=sum(row.gain < 0 for row in rows),
            same=sum(row.gain == 0 for row in rows),
            decided=sum(row.change.top1.decided != 0 for row in rows),
            chart=charts.changes({row.name: row.moved for row in both_ends}) if both_ends else None,
        )
    return None


# --- pictures -----------------------------------------------------------------------------------


def _strips(told: Told, models: dict[str, nn.Module]) -> list[Strip]:
    """Of the first suite with shifts."""
    for name, entry in told.suites.items():
        if not entry.shifts:
            continue
        kept = told.folder / outputs.SETTINGS
        plan = plans.plan_of(read_json(kept), kept)
        last = list(models.values())[-1]  # the tuned one, or the only one
        tests = plan.open(name, last)
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
