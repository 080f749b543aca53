"""From the records of a study's runs to its table, the paper's number beside ours."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from refocus.evaluation import maps
from refocus.evaluation.metrics import DIFFERENCE, PERCENT
from refocus.figures.escape import harmless, inline
from refocus.intervals import FEW, mean_interval
from refocus.records import Prediction
from refocus.results import Interval
from refocus.studies import jobs
from refocus.studies.datasets import Ground
from refocus.studies.jobs import Job
from refocus.studies.paper import cells, published
from refocus.studies.registry import ORIGINAL, PUBLISHED, Study, Variant

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "pixel_accuracy": "pixel accuracy",
    "miou": "mean IoU",
    "map": "mAP",
}
NEAREST = "ViT-B"  # the paper's model that stands beside a user's own


@dataclass(frozen=True)
class Line:
    """One number of one run.

    Accuracies and their changes in percent and points, intervals 95 % over images; change: against
    the original on the same images. std: over seeds. paper: the printed number, paper_change:
    against its original.
    """

    model: str
    method: str
    suite: str
    metric: str
    n: int
    value: float | None
    low: float | None = None
    high: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    std: float | None = None
    paper: float | None = None
    paper_change: float | None = None
    classes: str = "all"


def by_image(
    levels: dict[str, list[Prediction]], metric: str, among: frozenset[int] | None = None
) -> dict[str, float]:
    """Image -> share of its levels that are right, in percent.

    `among` keeps the images of these labels.
    """
    found: dict[str, list[bool]] = defaultdict(list)
    for predictions in levels.values():
        for p in predictions:
            if among is None or p.label in among:
                found[p.image].append(p.right if metric == "top1" else p.right5)
    return {image: 100 * float(np.mean(right)) for image, right in found.items()}


def compare(now: dict[str, float], before: dict[str, float] | None) -> dict[str, Any]:
    """Value with interval, and the paired change with interval."""
    values = list(now.values())
    low, high = mean_interval(values, PERCENT) or (None, None)
    found = {
        "n": len(values),
        "value": float(np.mean(values)) if values else None,
        "low": low,
        "high": high,
    }
    if before is not None and now:
        shared = [now[image] - before[image] for image in now if image in before]
        worse, better = mean_interval(shared, DIFFERENCE) or (None, None)
        found |= {"change": float(np.mean(shared)), "change_low": worse, "change_high": better}
    return found


def _printed(
    row: Study,
    ground: Ground,
    model: str,
    variant: Variant,
    suite: str,
    metric: str,
    *,
    classes: str = "all",
) -> dict[str, Any]:
    """The paper's number for a cell, and its change against the paper's original.

    For a user's own ground those of the nearest suite and model.
    """
    name, like = (NEAREST if ground.own else model), ground.like(suite)
    masks = variant.masks or next(iter(ground.masks), "annotated")
    for table in row.tables:
        value = None
        for kind in (masks, "annotated"):  # most of its tables have annotated masks alone
            if value is None and variant.method:
                value = published(
                    table, name, variant.method, like, metric, masks=kind, classes=classes
                )
        before = published(table, name, "original", like, metric, classes=classes)
        if value is not None:
            change = None if before is None or not variant.tunes else round(value - before, 1)
            return {"paper": value, "paper_change": change}
    return {}


def methods(
    row: Study,
    ground: Ground,
    models: Sequence[str],
    variants: Sequence[Variant],
    suites: Sequence[str],
    out: Path,
) -> list[Line]:
    """Tables 1, 2, 4 and 12, and figure 7: a row for each run, a column for each suite."""
    lines = []
    for model in models:
        for suite in suites:
            for metric in row.metrics:
                before = by_image(jobs.answers(Job(model, ORIGINAL), ground, suite, out), metric)
                for variant in variants:
                    now = by_image(jobs.answers(Job(model, variant), ground, suite, out), metric)
                    found = compare(now, before if variant.tunes else None)
                    printed = _printed(row, ground, model, variant, suite, metric)
                    lines.append(Line(model, variant.title, suite, metric, **found, **printed))
    return lines


def seeds(
    row: Study,
    ground: Ground,
    models: Sequence[str],
    variants: Sequence[Variant],
    suites: Sequence[str],
    out: Path,
) -> list[Line]:
    """Tables 8 and 9: mean and standard deviation over seeds of the training classes."""
    runs = methods(row, ground, models, variants, suites, out)
    lines = [line for line in runs if line.method == ORIGINAL.title]
    for before in list(lines):
        same = [
            r
            for r in runs
            if (r.model, r.suite, r.metric) == (before.model, before.suite, before.metric)
            and r is not before
        ]
        values, changes = (
            [v for r in same if (v := getattr(r, key)) is not None] for key in ("value", "change")
        )
        printed = _printed(row, ground, before.model, PUBLISHED, before.suite, before.metric)
        spread = stdev(values) if len(values) > 1 else None
        title = f"{PUBLISHED.title}, {len(same)} seeds"
        lines.append(
            Line(
                before.model,
                title,
                before.suite,
                before.metric,
                before.n,
                mean(values),
                change=mean(changes),
                std=spread,
                **printed,
            )
        )
    return lines


def classes(
    row: Study,
    ground: Ground,
    models: Sequence[str],
    variants: Sequence[Variant],
    suites: Sequence[str],
    out: Path,
) -> list[Line]:
    """Tables 10 and 11 and figure 4: the classes trained on and the others apart."""
    lines = []
    for model in models:
        trained = jobs.trained_labels(Job(model, PUBLISHED), out)
        for suite in suites:
            found = {v.name: jobs.answers(Job(model, v), ground, suite, out) for v in variants}
            labels = {p.label for level in found[ORIGINAL.name].values() for p in level}
            for which, among in (("trained", labels & trained), ("untrained", labels - trained)):
                for metric in row.metrics:
                    before = by_image(found[ORIGINAL.name], metric, frozenset(among))
                    for variant in variants:
                        now = by_image(found[variant.name], metric, frozenset(among))
                        numbers = compare(now, before if variant.tunes else None)
                        printed = _printed(
                            row, ground, model, variant, suite, metric, classes=which
                        )
                        lines.append(
                            Line(
                                model,
                                variant.title,
                                suite,
                                metric,
                                **numbers,
                                **printed,
                                classes=which,
                            )
                        )
    return lines


def segmentation(
    row: Study,
    ground: Ground,
    models: Sequence[str],
    variants: Sequence[Variant],
    suites: Sequence[str],
    out: Path,
) -> list[Line]:
    """Table 3: the published segmentation test, in percent."""
    lines = []
    for model in models:
        before = jobs.maps_of(Job(model, ORIGINAL), out)
        for variant in variants:
            records = before if not variant.tunes else jobs.maps_of(Job(model, variant), out)
            found = maps.scores(records, before if variant.tunes else None, 0)
            for metric in ("pixel_accuracy", "miou", "map"):
                one = found[metric]
                numbers = {"value": one.model.value, **_pair("low", "high", one.model.interval)}
                if one.change:
                    numbers["change"] = one.change.difference
                    numbers |= _pair("change_low", "change_high", one.change.interval)
                percent: dict[str, Any] = {
                    k: None if v is None else 100 * v for k, v in numbers.items()
                }
                printed = _printed(row, ground, model, variant, "imagenet-segmentation", metric)
                suite = "test images with masks" if ground.own else "imagenet-segmentation"
                lines.append(
                    Line(model, variant.title, suite, metric, one.model.n, **percent, **printed)
                )
    return lines


def _pair(low: str, high: str, interval: Interval | None) -> dict[str, float | None]:
    """The ends of an interval by name."""
    return dict(zip((low, high), interval or (None, None), strict=True))


# --- in writing ---------------------------------------------------------------------------------


def markdown(lines: Sequence[Line]) -> str:
    """A row for each method (and group of classes), a column for each suite and metric.

    Below each the paper's, if it has one.
    """
    columns = list(dict.fromkeys((line.suite, line.metric) for line in lines))
    rows: dict[tuple[str, str, str], dict[tuple[str, str], Line]] = defaultdict(dict)
    for line in lines:
        rows[line.model, line.method, line.classes][line.suite, line.metric] = line
    count = {
        column: min(found[column].n for found in rows.values() if column in found)
        for column in columns
    }
    titles = [f"{suite} {METRICS[metric]}" for suite, metric in columns]
    few = [f" (n = {count[column]}, few)" if count[column] < FEW else "" for column in columns]
    head = ["model", "method", *(title + mark for title, mark in zip(titles, few, strict=True))]
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for (name, method, which), found in rows.items():
        model = inline(name)
        title = method if which == "all" else f"{method}, {which} classes"
        text.append(
            "| " + " | ".join([model, title, *(_ours(found.get(c)) for c in columns)]) + " |"
        )
        if any(line.paper is not None for line in found.values()):
            text.append(
                "| "
                + " | ".join(["", "*the paper*", *(_theirs(found.get(c)) for c in columns)])
                + " |"
            )
    return "\n".join(text) + "\n"


def _ours(line: Line | None) -> str:
    if line is None or line.value is None:
        return "-"
    text = f"{line.value:.1f}" + (f" ± {line.std:.1f}" if line.std is not None else "")
    if line.change is not None:
        text += f" {line.change:+.1f}"
        if line.change_low is not None and line.change_high is not None:
            text += f" ({line.change_low:+.1f} to {line.change_high:+.1f})"
    return text


def _theirs(line: Line | None) -> str:
    if line is None or line.paper is None:
        return "-"
    return f"{line.paper:.1f}" + (
        f" {line.paper_change:+.1f}" if line.paper_change is not None else ""
    )


def as_csv(lines: Sequence[Line]) -> str:
    """All numbers in full precision."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, [f.name for f in fields(Line)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: "" if v is None else harmless(v) for k, v in asdict(line).items()} for line in lines
    )
    return sink.getvalue()


# --- the reproduction sheet ---------------------------------------------------------------------

SUITE_TITLES = {
    "imagenet": "ImageNet",
    "imagenet-a": "ImageNet-A",
    "imagenet-r": "ImageNet-R",
    "imagenet-sketch": "ImageNet-Sketch",
    "imagenet-v2": "ImageNet-V2",
    "objectnet": "ObjectNet",
    "si-location": "SI-Score location",
    "si-rotation": "SI-Score rotation",
    "si-size": "SI-Score size",
    "imagenet-segmentation": "ImageNet-Segmentation",
}
SPREAD = 0.5  # points: about the deviation over seeds that the paper's Table 8 prints
HEAD = ("Dataset", "Model", "Metric", "Claimed", "Ours", "Status")
_TITLES = {
    "original": "",
    "relevance": " (Opt Relevance)",
    "gradmask": " (GradMask)",
    "rrr": " (RRR)",
}


def status(claimed: float, line: Line | None) -> str:
    """`verified` where the claim lies in our 95 % interval over images, else `not reproduced`.

    Give or take `SPREAD`.
    """
    if line is None or line.value is None:
        return "not run"
    low = line.value if line.low is None else line.low
    high = line.value if line.high is None else line.high
    return "verified" if low - SPREAD <= claimed <= high + SPREAD else "not reproduced"


def claims(lines: Sequence[Line], titles: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """The reproduction sheet: every number of Tables 1 to 3, with ours where it was run.

    titles: method -> (the paper's name of it, kind of masks).
    """
    ours = {
        (line.model, *titles[line.method], line.suite, line.metric): line
        for line in lines
        if line.method in titles
    }
    sheet = []
    for cell in cells():
        if cell.table > 3 or cell.model == "average":
            continue
        line = ours.get((cell.model, cell.method, cell.masks, cell.suite, cell.metric))
        automatic = ", automatic masks" if cell.masks == "unsupervised" else ""
        accuracy = " Accuracy" if cell.metric.startswith("top") else ""
        sheet.append(
            {
                "Dataset": SUITE_TITLES[cell.suite],
                "Model": cell.model + _TITLES[cell.method].replace(")", automatic + ")"),
                "Metric": METRICS[cell.metric].capitalize() + accuracy
                if accuracy
                else METRICS[cell.metric],
                "Claimed": cell.value,
                "Ours": None if line is None else line.value,
                "Status": status(cell.value, line),
            }
        )
    return sheet


def sheet_text(sheet: Sequence[dict[str, Any]]) -> str:
    """Tab-separated, one claim a line, as the public sheet has it."""
    rows = ["\t".join(HEAD)]
    rows += [
        "\t".join(
            "-" if r[k] is None else f"{r[k]:.1f}" if k == "Ours" else f"{r[k]}" for k in HEAD
        )
        for r in sheet
    ]
    return "\n".join(rows) + "\n"
