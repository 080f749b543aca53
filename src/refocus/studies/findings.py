"""Finished runs -> what a study shows: lines, charts, pictures, a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from refocus.results import GroupChange
from refocus.studies import claims, figures, layouts, pictures, salience, subset_study
from refocus.studies.order import Order
from refocus.studies.page import Chart, Pictures
from refocus.studies.results import AVERAGE, Claim, Line, Salience, Subsets
from refocus.studies.words import plural, signed


@dataclass(frozen=True)
class Findings:
    """What a layout makes of the records; `text` stands in the place of a table."""

    lines: tuple[Line, ...] = ()
    charts: tuple[Chart, ...] = ()
    groups: tuple[Pictures, ...] = ()
    claims: tuple[Claim, ...] = ()
    classes: dict[str, tuple[GroupChange, ...]] = field(default_factory=dict)
    subsets: tuple[Subsets, ...] = ()
    salience: tuple[Salience, ...] = ()
    text: str = ""


Layout = Callable[[Order], Findings]


def find(order: Order) -> Findings:
    """What the study's layout makes of its finished runs."""
    return LAYOUTS[order.row.layout](order)


def _table(make: Callable[[Order], list[Line]]) -> Layout:
    def found(order: Order) -> Findings:
        lines = tuple(make(order))
        shown = (*figures.accuracy_charts(lines), *figures.average_charts(lines))
        return Findings(lines, shown)

    return found


def _averages(order: Order) -> Findings:
    lines = tuple(line for line in layouts.classes(order) if line.model == AVERAGE)
    return Findings(lines, figures.average_charts(lines))


def _samples(order: Order) -> Findings:
    lines = tuple(layouts.methods(order))
    return Findings(lines, figures.sample_charts(lines, order.variants))


def _shown(make: Callable[[Order], tuple[Pictures, ...]], nothing: str) -> Layout:
    def found(order: Order) -> Findings:
        groups = make(order)
        said = [f"{group.title}: {plural(group.total, 'image', 'images')}\n" for group in groups]
        return Findings(groups=groups, text="".join(said) or nothing)

    return found


def _per_class(order: Order) -> Findings:
    every = figures.class_changes(order)
    return Findings(
        charts=figures.class_charts(every, order.row.ends), classes=every, text=_class_text(every)
    )


def _class_text(every: Mapping[str, Sequence[GroupChange]]) -> str:
    text = ""
    for title, rows in every.items():
        changes = [row.gain for row in rows]
        text += (
            f"{title}: {plural(sum(c > 0 for c in changes), 'class gains', 'classes gain')}, "
            f"{sum(c < 0 for c in changes)} lose, {changes.count(0)} stay.\n"
        )
        some = rows if len(rows) <= 10 else (*rows[:5], *rows[-5:])
        ends = [row for row in some if row.gain]
        text += "".join(f"  {signed(row.gain)}  {row.name}\n" for row in ends)
    return text


def _subsets(order: Order) -> Findings:
    found = [
        subset_study.subset_study(
            order.ground, model, order.device, suites=order.suites, seed=order.seed
        )
        for model in order.models
    ]
    return Findings(
        groups=tuple(group for _, groups in found for group in groups),
        subsets=tuple(numbers for numbers, _ in found),
        text="".join(subset_study.summary(numbers) for numbers, _ in found),
    )


def _salience(order: Order) -> Findings:
    found = [salience.salience(order, model) for model in order.models]
    return Findings(
        groups=tuple(group for _, groups in found for group in groups),
        salience=tuple(numbers for numbers, _ in found),
        text="".join(salience.summary(numbers) for numbers, _ in found),
    )


def _claims(order: Order) -> Findings:
    lines = layouts.methods(order)
    lines += layouts.segmentation(order) if order.map_images else []
    kind = next(iter(order.ground.masks))
    titles = {
        v.title: (v.method, "" if not v.tunes else v.masks or kind)
        for v in order.variants
        if v.method
    }
    sheet = claims.claims(lines, titles)
    return Findings(tuple(lines), claims=sheet, text=claims.sheet_text(sheet))


LAYOUTS: dict[str, Layout] = {
    "methods": _table(layouts.methods),
    "classes": _table(layouts.classes),
    "averages": _averages,
    "segmentation": _table(layouts.segmentation),
    "samples": _samples,
    "gallery": _shown(pictures.galleries, "No image.\n"),
    "worst": _shown(pictures.worst, "No class loses.\n"),
    "per_class": _per_class,
    "salience": _salience,
    "subsets": _subsets,
    "claims": _claims,
}
