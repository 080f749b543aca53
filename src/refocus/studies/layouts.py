"""Records of finished runs -> the lines of a study's table, the paper's number beside ours."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import stdev

import numpy as np

from refocus.evaluation import maps
from refocus.evaluation.intervals import estimate, mean_change
from refocus.evaluation.metrics import DIFFERENCE, PERCENT, SEGMENTATION
from refocus.evaluation.plan import SEGMENTS
from refocus.intervals import crossed_interval
from refocus.records import MapRecord
from refocus.results import Change, Compared, Estimate, Interval
from refocus.studies import jobs
from refocus.studies.datasets import MASKED
from refocus.studies.jobs import Job, Levels
from refocus.studies.order import Order
from refocus.studies.paper import cells, published
from refocus.studies.registry import ORIGINAL, PUBLISHED, Variant
from refocus.studies.results import AVERAGE, Line

NEAREST = "ViT-B"  # the paper's model that stands beside a user's own
Groups = dict[str, frozenset[int] | None]  # "all", "trained", ... -> labels; None: every image
Statistic = Callable[[np.ndarray], np.ndarray]  # sums [r, k] -> [r]
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


@dataclass(frozen=True)
class Moved:
    """Change of every image in every draw, `[draws, images]`, in points."""

    images: list[str]
    values: np.ndarray


def compare(draws: Sequence[Scores], before: Scores | None) -> Numbers:
    """Mean over the images that all draws answered, and the paired change, with 95 % intervals."""
    images = [image for image in draws[0] if all(image in draw for draw in draws)]
    values = np.array([[draw[image] for image in images] for draw in draws])
    spread = stdev(values.mean(1).tolist()) if len(draws) > 1 and images else None
    found = moves(draws, before) if before is not None else None
    change = change_of(found.values) if found and found.images else None
    return Numbers(_estimate(values), change, spread, len(draws))


def moves(draws: Sequence[Scores], before: Scores) -> Moved:
    """Each image's score minus that of the original, over the images that all answered."""
    images = [image for image in before if all(image in draw for draw in draws)]
    return Moved(
        images, np.array([[draw[image] - before[image] for image in images] for draw in draws])
    )


def together(models: Sequence[Moved]) -> np.ndarray:
    """The mean over models of each image's change, `[draws, images]`, over the shared images."""
    shared = set(models[0].images).intersection(*(one.images for one in models))
    parts = []
    for one in models:
        column = {image: i for i, image in enumerate(one.images)}
        parts.append(
            one.values[:, [column[image] for image in models[0].images if image in shared]]
        )
    mean: np.ndarray = np.mean(parts, axis=0)
    return mean


def _estimate(values: np.ndarray) -> Estimate:
    """Of values `[draws, images]`, in percent."""
    if len(values) == 1:
        return estimate(values[0], PERCENT)
    mean = float(values.mean()) if values.size else None
    return Estimate(mean, crossed_interval(values, PERCENT), values.shape[1])


def change_of(values: np.ndarray) -> Change:
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
        trained = jobs.trained_labels(order.runs(model, PUBLISHED)[0], order.out)
        return {
            "trained": frozenset(labels & trained),
            "untrained": frozenset(labels - trained),
        }

    return _accuracies(order, split)


def _accuracies(order: Order, split: Callable[[str, Levels], Groups]) -> list[Line]:
    """Lines of each model, then those of the average over them where the paper prints it."""
    of_model: dict[str, list[Line]] = {model: [] for model in order.models}
    averages = []
    for suite in order.suites:
        moved: dict[Cell, dict[str, list[Moved]]] = defaultdict(lambda: defaultdict(list))
        for model in order.models:
            of_model[model] += _of_model(order, model, suite, split, moved)
        if order.row.average and (len(order.models) > 1 or order.row.layout == "averages"):
            averages += _averages(order, moved)
    return [line for lines in of_model.values() for line in lines] + averages


def _of_model(
    order: Order,
    model: str,
    suite: str,
    split: Callable[[str, Levels], Groups],
    moved: dict[Cell, dict[str, list[Moved]]],
) -> list[Line]:
    """One model's lines on one suite; what moved is added for the average."""
    before = order.answers(Job(model, ORIGINAL), suite)
    groups = split(model, before)
    of_group: dict[str, list[Line]] = {which: [] for which in groups}
    for variant in order.variants:
        runs = [order.answers(job, suite) for job in order.runs(model, variant)]
        for (which, among), metric in product(groups.items(), order.row.metrics):
            start = by_image(before, metric, among) if variant.tunes else None
            scores = [by_image(run, metric, among) for run in runs]
            cell = Cell(model, suite, metric, which)
            of_group[which].append(_line(order, cell, variant, compare(scores, start)))
            if start is not None and order.row.average:
                moved[replace(cell, model=AVERAGE)][variant.name].append(moves(scores, start))
    return [line for some in of_group.values() for line in some]


def _averages(order: Order, moved: dict[Cell, dict[str, list[Moved]]]) -> list[Line]:
    """Mean change over the models of each method, of one suite, as the paper prints it."""
    lines = []
    for cell, of_variant in moved.items():
        for variant in order.variants:
            if variant.name in of_variant:
                values = together(of_variant[variant.name])
                several = len(values) > 1 and values.size
                spread = float(values.mean(1).std(ddof=1)) if several else None
                change = change_of(values) if values.size else None
                nothing = Estimate(None, None, values.shape[1])
                found = Numbers(nothing, change, spread, len(values))
                lines.append(_line(order, cell, variant, found))
    return lines


def segmentation(order: Order) -> list[Line]:
    """Table 3: the published segmentation test, in percent."""
    lines = []
    suite = MASKED if order.ground.own else SEGMENTS
    for model, variant in product(order.models, order.variants):
        before = jobs.maps_of(Job(model, ORIGINAL), order.out)
        runs = [jobs.maps_of(job, order.out) for job in order.runs(model, variant)]
        for metric in SEGMENTATION:
            found = fits(runs, before if variant.tunes else None, metric)
            lines.append(_line(order, Cell(model, suite, metric), variant, found))
    return lines


def fits(
    draws: Sequence[Sequence[MapRecord]], before: Sequence[MapRecord] | None, metric: str
) -> Numbers:
    """One score of the segmentation test in percent, and its paired change, with 95 % intervals."""
    if len(draws) == 1:
        found_one = maps.scores(draws[0], before, 0)
        return _percent(found_one[metric]) if metric in found_one else _nothing(1)
    rows = [
        {row.image: row.segmentation for row in some if row.segmentation}
        for some in (*draws, *([] if before is None else [before]))
    ]
    images = [row.image for row in draws[0] if all(row.image in some for some in rows)]
    if not images:
        return _nothing(len(draws))
    columns = [np.array([some[image] for image in images]) for some in rows]
    statistic = SEGMENTATION[metric]
    found = [_influence(one, statistic) for one in columns]
    start = found.pop() if before is not None else None
    values = np.array([value for value, _ in found])
    each = np.array([pseudo for _, pseudo in found])
    number = _of_draws(values.mean(), each, PERCENT)
    change = None
    if start is not None:
        moved = _of_draws(values.mean() - start[0], each - start[1], DIFFERENCE)
        change = Change(moved.value, moved.interval, moved.n)
    return Numbers(number, change, float(values.std(ddof=1)), len(draws))


def _nothing(draws: int) -> Numbers:
    """Where no image counts."""
    return Numbers(Estimate(None, None, 0), None, None, draws)


def _influence(columns: np.ndarray, statistic: Statistic) -> tuple[float, np.ndarray]:
    """A score made of sums over images, in percent, and the jackknife's pseudo-value of each image.

    The pseudo-values `[n]` have nearly the score as their mean, and their variance says how it
    varies with the images (Tukey, 1958). columns: `[n, k]`.
    """
    total, n = columns.sum(0), len(columns)
    value = float(statistic(total[None])[0])
    return 100 * value, 100 * (n * value - (n - 1) * statistic(total - columns))


def _of_draws(value: float, each: np.ndarray, bounds: tuple[float, float]) -> Estimate:
    """A score with the interval of its pseudo-values `[draws, images]`, moved to the score."""
    found = crossed_interval(each, (-math.inf, math.inf))
    if found is None or not np.isfinite(found).all():
        return Estimate(float(value), None, each.shape[1])
    low, high = (float(np.clip(end + value - each.mean(), *bounds)) for end in found)
    return Estimate(float(value), (low, high), each.shape[1])


def _percent(score: Compared) -> Numbers:
    """A score in [0, 1] in percent, its change in points."""
    assert score.model.value is not None  # there are images
    number = Estimate(100 * score.model.value, _scaled(score.model.interval), score.model.n)
    change = None
    if score.change is not None and score.change.difference is not None:
        moved = _scaled(score.change.interval)
        change = Change(100 * score.change.difference, moved, score.change.n)
    return Numbers(number, change, None, 1)


def _scaled(interval: Interval | None) -> Interval | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def _line(order: Order, cell: Cell, variant: Variant, numbers: Numbers) -> Line:
    paper, paper_change = printed(order, cell, variant)
    return Line(
        cell.model,
        variant.title,
        cell.suite,
        cell.metric,
        numbers.number,
        numbers.change,
        numbers.spread,
        numbers.draws,
        paper,
        paper_change,
        cell.classes,  # type: ignore[arg-type]
    )


# --- the paper's --------------------------------------------------------------------------------


def printed(order: Order, cell: Cell, variant: Variant) -> tuple[float | None, float | None]:
    """The paper's number for a cell, and its change against the paper's original.

    For a user's own ground those of the nearest suite and model.
    """
    if cell.model == AVERAGE:
        return None, _printed_average(order, cell, variant)
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
    name, like = _printed_model(order, cell), ground.like(cell.suite)
    masks = variant.masks or next(iter(ground.masks), "annotated")
    for kind in (masks, "annotated"):  # most of its tables have annotated masks alone
        if found is None and variant.method:
            found = published(
                table, name, variant.method, like, cell.metric, masks=kind, classes=cell.classes
            )
    return found


def _printed_model(order: Order, cell: Cell) -> str:
    return NEAREST if order.ground.own and cell.model != AVERAGE else cell.model


def _printed_average(order: Order, cell: Cell, variant: Variant) -> float | None:
    """The paper's average change, where the same models are averaged (or a user's own)."""
    for table in order.row.tables:
        same = {c.model for c in cells() if c.table == table and c.method == variant.method}
        if order.ground.own or same - {AVERAGE} == set(order.models):
            change = replace(cell, metric=f"{cell.metric}_change")
            found = _printed(order, change, variant, table)
            if found is not None:
                return found
    return None
