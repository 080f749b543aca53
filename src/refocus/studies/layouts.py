"""Records of finished runs -> the lines of a study's table, the paper's number beside ours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import stdev

import numpy as np

from refocus.evaluation import maps
from refocus.evaluation.intervals import estimate, mean_change
from refocus.evaluation.metrics import DIFFERENCE, PERCENT
from refocus.evaluation.plan import SEGMENTS
from refocus.intervals import crossed_interval
from refocus.results import Change, Compared, Estimate
from refocus.studies import jobs
from refocus.studies.datasets import MASKED
from refocus.studies.jobs import Job, Levels
from refocus.studies.order import Order
from refocus.studies.paper import published
from refocus.studies.registry import ORIGINAL, PUBLISHED, Variant
from refocus.studies.results import Line

NEAREST = "ViT-B"  # the paper's model that stands beside a user's own
Groups = dict[str, frozenset[int] | None]  # "all", "trained", ... -> labels; None: every image
Scores = Mapping[str, float]  # image -> percent


@dataclass(frozen=True)
class Cell:
    """Where in a table a number stands."""

    model: str
    suite: str
    metric: str
    classes: str = "all"


@dataclass(frozen=True)
class Numbers:
    """Mean over images and draws, its paired change, and the deviation over draws."""

    number: Estimate
    change: Change | None
    spread: float | None
    draws: int


def by_image(levels: Levels, metric: str, among: frozenset[int] | None = None) -> Scores:
    """Image -> share of its levels that are right, in percent.

    `among` keeps the images of these labels.
    """
    found: dict[str, list[bool]] = defaultdict(list)
    for predictions in levels.values():
        for p in predictions:
            if among is None or p.label in among:
                found[p.image].append(p.right if metric == "top1" else p.right5)
    return {image: 100 * float(np.mean(right)) for image, right in found.items()}


def compare(draws: Sequence[Scores], before: Scores | None) -> Numbers:
    """Mean over the images that all draws answered, and the paired change, with 95 % intervals."""
    images = [image for image in draws[0] if all(image in draw for draw in draws)]
    values = np.array([[draw[image] for image in images] for draw in draws])
    spread = stdev(values.mean(1).tolist()) if len(draws) > 1 and images else None
    change = None
    if before is not None:
        shared = [image for image in images if image in before]
        moved = np.array([[draw[image] - before[image] for image in shared] for draw in draws])
        change = _change(moved) if shared else None
    return Numbers(_estimate(values), change, spread, len(draws))


def _estimate(values: np.ndarray) -> Estimate:
    """Of values `[draws, images]`, in percent."""
    if len(values) == 1:
        return estimate(values[0], PERCENT)
    mean = float(values.mean()) if values.size else None
    return Estimate(mean, crossed_interval(values, PERCENT), values.shape[1])


def _change(values: np.ndarray) -> Change:
    """Of paired changes `[draws, images]`, in points."""
    if len(values) == 1:
        return mean_change(values[0], DIFFERENCE)
    return Change(float(values.mean()), crossed_interval(values, DIFFERENCE), values.shape[1])


# --- the layouts --------------------------------------------------------------------------------


def methods(order: Order) -> list[Line]:
    """Tables 1, 2, 4, 8, 9 and 12, and figure 7: a row for each method, a column for each suite."""
    return _accuracies(order, lambda _model, _before: {"all": None})


def classes(order: Order) -> list[Line]:
    """Tables 10 and 11 and figure 4: the classes trained on and the others apart."""

    def split(model: str, before: Levels) -> Groups:
        labels = {p.label for level in before.values() for p in level}
        trained = jobs.trained_labels(Job(model, PUBLISHED), order.out)
        return {
            "trained": frozenset(labels & trained),
            "untrained": frozenset(labels - trained),
        }

    return _accuracies(order, split)


def _accuracies(order: Order, split: Callable[[str, Levels], Groups]) -> list[Line]:
    lines = []
    for model, suite in product(order.models, order.suites):
        before = order.answers(Job(model, ORIGINAL), suite)
        groups = split(model, before)
        of_group: dict[str, list[Line]] = {which: [] for which in groups}
        for variant in order.variants:
            runs = [order.answers(job, suite) for job in order.runs(model, variant)]
            for (which, among), metric in product(groups.items(), order.row.metrics):
                start = by_image(before, metric, among) if variant.tunes else None
                found = compare([by_image(run, metric, among) for run in runs], start)
                cell = Cell(model, suite, metric, which)
                of_group[which].append(_line(order, cell, variant, found))
        lines += [line for some in of_group.values() for line in some]
    return lines


def segmentation(order: Order) -> list[Line]:
    """Table 3: the published segmentation test, in percent."""
    lines = []
    suite = MASKED if order.ground.own else SEGMENTS
    for model, variant in product(order.models, order.variants):
        before = jobs.maps_of(Job(model, ORIGINAL), order.out)
        records = before if not variant.tunes else jobs.maps_of(Job(model, variant), order.out)
        found = maps.scores(records, before if variant.tunes else None, 0)
        for metric in ("pixel_accuracy", "miou", "map"):
            cell = Cell(model, suite, metric)
            lines.append(_line(order, cell, variant, _percent(found[metric])))
    return lines


def _percent(score: Compared) -> Numbers:
    """A score in [0, 1] in percent, its change in points."""
    low, high = score.model.interval or (None, None)
    assert score.model.value is not None  # there are images
    interval = None if low is None or high is None else (100 * low, 100 * high)
    change = None
    if score.change is not None and score.change.difference is not None:
        ends = score.change.interval
        moved = None if ends is None else (100 * ends[0], 100 * ends[1])
        change = Change(100 * score.change.difference, moved, score.change.n)
    return Numbers(Estimate(100 * score.model.value, interval, score.model.n), change, None, 1)


def _line(order: Order, cell: Cell, variant: Variant, found: Numbers) -> Line:
    paper, paper_change = printed(order, cell, variant)
    return Line(
        cell.model,
        variant.title,
        cell.suite,
        cell.metric,
        found.number,
        found.change,
        found.spread,
        found.draws,
        paper,
        paper_change,
        cell.classes,  # type: ignore[arg-type]
    )


# --- the paper's --------------------------------------------------------------------------------


def printed(order: Order, cell: Cell, variant: Variant) -> tuple[float | None, float | None]:
    """The paper's number for a cell, and its change against the paper's original.

    For a user's own ground those of the nearest suite and model.
    """
    for table in order.row.tables:
        value = _printed(order, cell, variant, table)
        if value is None:
            continue
        before = _printed(order, cell, ORIGINAL, table)
        moved = None if before is None or not variant.tunes else round(value - before, 1)
        return value, moved
    return None, None


def _printed(order: Order, cell: Cell, variant: Variant, table: int) -> float | None:
    ground, found = order.ground, None
    name, like = NEAREST if ground.own else cell.model, ground.like(cell.suite)
    masks = variant.masks or next(iter(ground.masks), "annotated")
    for kind in (masks, "annotated"):  # most of its tables have annotated masks alone
        if found is None and variant.method:
            found = published(
                table, name, variant.method, like, cell.metric, masks=kind, classes=cell.classes
            )
    return found
