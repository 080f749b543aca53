"""The figures of the studies, and the page that shows a study: charts, numbers, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from refocus import outputs
from refocus.data.images import read_image
from refocus.evaluation.metrics import group_differences
from refocus.figures import charts
from refocus.figures.html import page
from refocus.figures.tables import Row
from refocus.records import Prediction
from refocus.reports import gallery
from refocus.results import Compared, Estimate, GroupChange
from refocus.studies import jobs
from refocus.studies.datasets import Ground
from refocus.studies.jobs import Job
from refocus.studies.layouts import METRICS, Line
from refocus.studies.registry import ORIGINAL, PUBLISHED
from refocus.vit.classes import class_folder_names
from refocus.vit.loading import load

ENDS = 50  # classes shown at each end of figures 8 to 14, as in the paper
NOTE = (
    "After a change, in brackets, its 95 % bootstrap interval over images, paired with the "
    "original on the same images. "
    "± is the standard deviation over seeds. Rows in italics: the paper's numbers, on its own "
    "models and data; beside a user's own "
    "folder those of ViT-B on the nearest data set."
)


def accuracy_charts(lines: Sequence[Line], before: str = ORIGINAL.title) -> list[dict[str, str]]:
    """One chart for each model and suite: every method against the original."""
    shown = []
    metric = lines[0].metric if lines else ""
    for model, suite in dict.fromkeys((line.model, line.suite) for line in lines):
        some = [
            line
            for line in lines
            if (line.model, line.suite, line.metric) == (model, suite, metric)
        ]
        starts = {line.classes: line for line in some if line.method == before}
        rest = [line for line in some if line.method != before]
        rows = []
        for line in rest:
            start = starts[line.classes]
            name = line.method if line.classes == "all" else f"{line.method}, {line.classes}"
            number = Compared(_estimate(line), _estimate(start))
            rows.append(Row(name, metric, number))
        if rows and metric in ("top1", "top5"):
            picture = charts.accuracies(rows, ("original", "tuned"))
            shown.append({"title": f"{model}: {suite}, {METRICS[metric]}", "picture": picture})
    return shown


def _estimate(line: Line) -> Estimate:
    interval = None if line.low is None or line.high is None else (line.low, line.high)
    return Estimate(line.value, interval, line.n)


def sample_charts(lines: Sequence[Line], classes: int) -> list[dict[str, str]]:
    """Figure 7: top-1 over samples per class, and over the number of classes.

    Published are 3, and half of the classes.
    """
    shown = []
    half = max(1, classes // 2)
    for model in dict.fromkeys(line.model for line in lines):
        for title, word, usual in (
            ("Samples per class", "a class", 3),
            ("Number of classes", "classes", half),
        ):
            series = {}
            for suite in dict.fromkeys(line.suite for line in lines):
                some = [line for line in lines if (line.model, line.suite) == (model, suite)]
                points = {
                    int(line.method.split()[0]): line for line in some if line.method.endswith(word)
                }
                points[usual] = next(line for line in some if line.method == PUBLISHED.title)
                start = next(line for line in some if line.method == ORIGINAL.title)
                series[suite] = (dict(sorted(points.items())), start)
            shown.append(
                {"title": f"{model}: {title}", "picture": charts.series(series, title.lower())}
            )
    return shown


def class_charts(
    ground: Ground, models: Sequence[str], suites: Sequence[str], out: Path
) -> tuple[list[Any], dict[str, tuple[GroupChange, ...]]]:
    """Figures 8 to 14: the classes that gain and lose most.

    And the change of every class for the records.
    """
    shown, every = [], {}
    for model in models:
        names = class_folder_names(load(ground.models[model]))
        for suite in suites:
            before, after = (
                _flat(jobs.answers(Job(model, v), ground, suite, out))
                for v in (ORIGINAL, PUBLISHED)
            )
            rows = group_differences(after, before, lambda p, names=names: names[p.label])  # type: ignore[misc]
            every[f"{model}: {suite}"] = rows
            moved = [r for r in rows if r.change.top1.interval and r.gain]
            ends = moved if len(moved) <= 2 * ENDS else moved[:ENDS] + moved[-ENDS:]
            if ends:
                shown.append(
                    {
                        "title": f"{model}: {suite}, change of top-1 by class",
                        "picture": charts.changes(ends),
                    }
                )
    return shown, every


def _flat(levels: dict[str, list[Prediction]]) -> list[Prediction]:
    """All levels in one list; the level becomes part of the image's name."""
    return [
        replace(p, image=f"{level}/{p.image}") for level, found in levels.items() for p in found
    ]


def galleries(
    ground: Ground, models: Sequence[str], suites: Sequence[str], out: Path, count: int = 4
) -> list[dict[str, Any]]:
    """Figures 2, 3 and 6: corrected, spoiled and kept images with both maps, chosen by rule."""
    groups = []
    for model in models:
        pair = {
            "original": load(ground.models[model]),
            "tuned": load(Job(model, PUBLISHED).folder(out) / "model"),
        }
        names = class_folder_names(pair["tuned"])
        for suite in suites:
            before, after = (
                jobs.answers(Job(model, v), ground, suite, out) for v in (ORIGINAL, PUBLISHED)
            )
            level = next(iter(before))
            tests = ground.tests(suite, pair["tuned"])[level]
            samples = {s.image.relative_to(tests.root).as_posix(): s for s in tests.samples}
            for group in gallery.outcomes(before[level], after[level], count):
                cards = []
                for image in group.shown:
                    sample = samples[image]
                    tiles = gallery.tiles(pair, read_image(sample.image), None, [sample.label] * 2)
                    cards.append(gallery.Card(image, names[sample.label], tiles))
                title = f"{model}, {suite}{' ' + level if level else ''}: {group.title.lower()}"
                groups.append(
                    {"title": title, "rule": group.rule, "total": group.total, "cards": cards}
                )
    return groups


# --- the page -----------------------------------------------------------------------------------


def write_page(
    file: Path,
    title: str,
    about: str,
    *,
    table: str = "",
    shown: Sequence[dict[str, str]] = (),
    groups: Sequence[Any] = (),
    facts: dict[str, Any],
) -> None:
    """One self-contained page; table: Markdown, as `study_tables.markdown` makes it."""
    lines = [
        [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        for line in table.splitlines()
    ]
    head, rows = (lines[0], lines[2:]) if lines else ([], [])
    content = page(
        "study.html.j2",
        title=title,
        about=about,
        charts=shown,
        head=head,
        rows=rows,
        note=NOTE,
        groups=groups,
        facts=facts,
        tile_columns=7,
    )
    outputs.write_text(file, content)
