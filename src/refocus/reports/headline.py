"""What a report says in words: headline, key numbers, facts."""

from __future__ import annotations

from dataclasses import dataclass

from refocus import outputs
from refocus.figures.tables import KeyNumber, Row
from refocus.reports.settings import HELD_OUT
from refocus.reports.told import Suites, Told
from refocus.results import Compared
from refocus.tuning.results import TuneResults


@dataclass(frozen=True)
class Headline:
    """The lines on top of a report."""

    title: str
    verdict: str  # one sentence
    more: str  # how sure it is, and what would make it surer
    caution: str


def headline_of(told: Told) -> Headline:
    """What was tuned or measured, what came of it, and how far that holds."""
    title, verdict, more = f"Evaluation of {told.evaluation.model}", _measured(told.suites), ""
    if told.evaluation.against is not None:
        title = "Before and after"
    if told.tuning:
        shots, results = len(told.tuning.selection.train), told.tuning.results
        title = f"Tuned with {shots} images of {len(results.trained_classes)} classes"
        if told.tuning.unchanged:
            title = "Nothing changed: the original model was kept"
        first, _, more = results.conclusion.partition(". ")
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
    return Headline(title, verdict, more, caution)


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


def shots_of(images: int, shots: int, results: TuneResults) -> str:
    """How many images were trained on, of how many classes; some may have had fewer than asked."""
    classes = len(results.trained_classes)
    each = f"{shots} each" if images == shots * classes else f"at most {shots} each"
    return f"{images} ({each} of {classes} classes)"


def facts_of(told: Told) -> dict[str, str]:
    """What was done, by what it is called: models, images, schedule, seeds, versions."""
    facts = {
        "model": told.evaluation.model,
        "compared with": told.evaluation.against or "-",
        "seed of the evaluation": str(told.evaluation.seed),
    }
    if told.evaluation.precision == "bf16":
        facts["numbers"] = "computed in bfloat16"
    if told.tuning:
        recipe, selection, results = (
            told.tuning.recipe,
            told.tuning.selection,
            told.tuning.results,
        )
        facts |= {
            "objective": recipe.objective,
            "images trained on": shots_of(len(selection.train), recipe.shots, results),
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
