"""The charts of the studies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import product

import numpy as np

from refocus.evaluation.metrics import group_differences
from refocus.figures import charts
from refocus.figures.tables import Row
from refocus.results import AccuracyChange, Compared, Estimate, GroupChange
from refocus.studies import layouts
from refocus.studies.jobs import Job, Levels, pooled
from refocus.studies.order import Order
from refocus.studies.page import Chart
from refocus.studies.registry import AXIS_CLASSES, AXIS_SHOTS, ORIGINAL, PUBLISHED, Variant
from refocus.studies.results import AVERAGE, Line
from refocus.studies.writing import METRICS
from refocus.vit.classes import brief_names
from refocus.vit.loading import load


def accuracy_charts(lines: Sequence[Line], before: str = ORIGINAL.title) -> tuple[Chart, ...]:
    """One chart for each model and suite: every method against the original."""
    shown = []
    metric = lines[0].metric if lines else ""
    of_models = [line for line in lines if line.model != AVERAGE]
    for model, suite in dict.fromkeys((line.model, line.suite) for line in of_models):
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
        # the tuned model carries the names of the class folders where the original has none
        tuned = order.runs(model, PUBLISHED)[0].folder(order.out) / "model"
        names = brief_names(load(tuned))
        for suite in order.suites:
            before = order.answers(Job(model, ORIGINAL), suite)
            runs = [order.answers(job, suite) for job in order.runs(model, PUBLISHED)]
            every[f"{model}: {suite}"] = (
                over_draws(runs, before, names)
                if len(runs) > 1 or len(before) > 1
                else group_differences(
                    pooled(runs[0]),
                    pooled(before),
                    lambda p, names=names: names[p.label],  # type: ignore[misc]
                )
            )
    return every


def over_draws(
    runs: Sequence[Levels], before: Levels, names: Sequence[str]
) -> tuple[GroupChange, ...]:
    """The mean change of every class over runs and levels, largest gain first.

    An image counts once, with the share of its levels that are right.
    """
    labels = {p.image: p.label for level in before.values() for p in level}
    metrics = ("top1", "top5")
    old = {metric: layouts.by_image(before, metric) for metric in metrics}
    new = {metric: [layouts.by_image(run, metric) for run in runs] for metric in metrics}
    of_class: dict[str, list[str]] = defaultdict(list)
    for image, label in labels.items():
        if all(image in run for run in new["top1"]):
            of_class[names[label]].append(image)
    rows = []
    for name, images in sorted(of_class.items()):
        after = {m: np.array([[run[i] for i in images] for run in new[m]]) for m in metrics}
        start = {m: np.array([old[m][i] for i in images]) for m in metrics}
        top1, top5 = (layouts.change_of(after[m] - start[m]) for m in metrics)
        means = float(after["top1"].mean()), float(start["top1"].mean())
        rows.append(GroupChange(name, *means, AccuracyChange(top1, top5)))
    return tuple(sorted(rows, key=lambda row: -row.gain))


def class_charts(every: dict[str, tuple[GroupChange, ...]], ends: int) -> tuple[Chart, ...]:
    """Every class, or the `ends` classes that gain and lose most."""
    shown = []
    for title, rows in every.items():
        some = rows if not ends or len(rows) <= 2 * ends else rows[:ends] + rows[-ends:]
        if some:
            shown.append(
                Chart(
                    f"{title}, change of top-1 by class",
                    charts.changes({row.name: row.moved for row in some}),
                )
            )
    return tuple(shown)


def average_charts(lines: Sequence[Line]) -> tuple[Chart, ...]:
    """Figure 4: the average change of each test set, a chart for each method and metric."""
    rows: dict[tuple[str, str], dict[str, Estimate]] = defaultdict(dict)
    for line in lines:
        if line.model == AVERAGE and line.change is not None:
            name = line.suite if line.classes == "all" else f"{line.suite}, {line.classes}"
            change = Estimate(line.change.difference, line.change.interval, line.change.n)
            rows[line.method, line.metric][name] = change
    return tuple(
        Chart(
            f"{method}: average change of {METRICS[metric]}", charts.changes(some, METRICS[metric])
        )
        for (method, metric), some in rows.items()
    )
