"""The charts and galleries of the studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from refocus.data.images import read_image
from refocus.evaluation.metrics import group_differences
from refocus.figures import charts
from refocus.figures.tables import Row
from refocus.records import Prediction
from refocus.reports import gallery
from refocus.results import Compared, GroupChange
from refocus.studies.jobs import Job, Levels
from refocus.studies.order import Order
from refocus.studies.page import Chart, Pictures
from refocus.studies.registry import AXIS_CLASSES, AXIS_SHOTS, ORIGINAL, PUBLISHED, Variant
from refocus.studies.results import Line
from refocus.studies.writing import METRICS
from refocus.vit.classes import class_folder_names
from refocus.vit.loading import load

ENDS = 50  # classes shown at each end of figures 8 to 14, as in the paper


def accuracy_charts(lines: Sequence[Line], before: str = ORIGINAL.title) -> tuple[Chart, ...]:
    """One chart for each model and suite: every method against the original."""
    shown = []
    metric = lines[0].metric if lines else ""
    for model, suite in dict.fromkeys((line.model, line.suite) for line in lines):
        some = [
            line
            for line in lines
            if (line.model, line.suite, line.metric) == (model, suite, metric)
        ]
        starts = {line.classes: line.number for line in some if line.method == before}
        rows = []
        for line in (line for line in some if line.method != before):
            name = line.method if line.classes == "all" else f"{line.method}, {line.classes}"
            rows.append(Row(name, metric, Compared(line.number, starts[line.classes])))
        if rows and metric in ("top1", "top5"):
            picture = charts.accuracies(rows, ("original", "tuned"))
            shown.append(Chart(f"{model}: {suite}, {METRICS[metric]}", picture))
    return tuple(shown)


def sample_charts(lines: Sequence[Line], variants: Sequence[Variant]) -> tuple[Chart, ...]:
    """Figure 7: top-1 over samples per class, and over the number of classes."""
    at = {variant.title: variant.at for variant in variants}
    starts = {(x.model, x.suite): x.number for x in lines if x.method == ORIGINAL.title}
    shown = []
    for model, axis in product(dict.fromkeys(x.model for x in lines), (AXIS_SHOTS, AXIS_CLASSES)):
        series = {}
        for suite in dict.fromkeys(line.suite for line in lines):
            points = {
                at[line.method][axis]: line.number
                for line in lines
                if (line.model, line.suite) == (model, suite) and axis in at[line.method]
            }
            series[suite] = (dict(sorted(points.items())), starts[model, suite])
        shown.append(Chart(f"{model}: {axis}", charts.series(series, axis)))
    return tuple(shown)


def class_changes(order: Order) -> dict[str, tuple[GroupChange, ...]]:
    """Figures 8 to 14: "MODEL: SUITE" -> the change of every class, largest gain first."""
    every = {}
    for model in order.models:
        names = class_folder_names(load(order.ground.models[model]))
        for suite in order.suites:
            before, after = (
                _flat(order.answers(Job(model, v), suite)) for v in (ORIGINAL, PUBLISHED)
            )
            every[f"{model}: {suite}"] = group_differences(
                after,
                before,
                lambda p, names=names: names[p.label],  # type: ignore[misc]
            )
    return every


def class_charts(every: dict[str, tuple[GroupChange, ...]]) -> tuple[Chart, ...]:
    """The classes that gain and lose most."""
    shown = []
    for title, rows in every.items():
        moved = [r for r in rows if r.change.top1.interval and r.gain]
        ends = moved if len(moved) <= 2 * ENDS else moved[:ENDS] + moved[-ENDS:]
        if ends:
            shown.append(Chart(f"{title}, change of top-1 by class", charts.changes(ends)))
    return tuple(shown)


def _flat(levels: Levels) -> list[Prediction]:
    """All levels in one list; the level becomes part of the image's name."""
    return [
        replace(p, image=f"{level}/{p.image}") for level, found in levels.items() for p in found
    ]


def galleries(order: Order, count: int = 4) -> tuple[Pictures, ...]:
    """Figures 2, 3 and 6: corrected, spoiled and kept images with both maps, chosen by rule."""
    groups: list[Pictures] = []
    for model in order.models:
        pair = {
            "original": load(order.ground.models[model]),
            "tuned": load(Job(model, PUBLISHED).folder(order.out) / "model"),
        }
        names = class_folder_names(pair["tuned"])
        for suite in order.suites:
            before, after = (order.answers(Job(model, v), suite) for v in (ORIGINAL, PUBLISHED))
            level = next(iter(before))
            tests = order.ground.tests(suite, pair["tuned"])[level]
            samples = {s.image.relative_to(tests.root).as_posix(): s for s in tests.samples}
            for group in gallery.outcomes(before[level], after[level], count):
                cards = []
                for image in group.shown:
                    sample = samples[image]
                    tiles = gallery.tiles(pair, read_image(sample.image), None, [sample.label] * 2)
                    cards.append(gallery.Card(image, names[sample.label], tiles))
                title = f"{model}, {suite}{' ' + level if level else ''}: {group.title.lower()}"
                groups.append(Pictures(title, group.rule, group.total, tuple(cards)))
    return tuple(groups)
