"""Rows and charts of a report: what changed by shift, group and class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from refocus.figures import charts
from refocus.figures.tables import Row
from refocus.reports.strips import title_of
from refocus.reports.told import LABELS, Suites
from refocus.results import Classification, Compared, Estimate, GroupChange

_AXES = {
    "size": "bounding box of the object, % of the image",
    "rotation": "rotation, degrees counter-clockwise",
}
_ENDS = 10  # classes shown that gain most, and that lose most


@dataclass(frozen=True)
class Curve:
    """The chart of a shift that has levels."""

    title: str
    about: str
    n: int
    chart: charts.Chart


def curves(suites: Suites) -> list[Curve]:
    """Every shift with levels, in the order of the suites."""
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
            found.append(Curve(f"{title_of(kind)} ({name})", shift.about, n, chart))
    return found


def _parts(suites: Suites) -> Iterator[tuple[str, Classification]]:
    """Every suite as it is, and every shift of it without levels."""
    for name, entry in suites.items():
        if entry.protocols:
            yield name, entry.first
        for kind, shift in entry.shifts.items():
            if shift.answers:
                yield f"{name}: {kind}", shift.answers


def trained_rows(suites: Suites) -> list[Row]:
    """Classes tuned on, and never tuned on."""
    return [
        _change_row(title, change)
        for title, answers in _parts(suites)
        for change in answers.trained_changes
    ]


def group_rows(suites: Suites) -> list[Row]:
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
class ChangedClasses:
    """The classes that gain and lose most in one suite."""

    suite: str
    gained: int
    lost: int
    same: int
    decided: int
    chart: charts.Chart | None


def changed_classes(suites: Suites) -> ChangedClasses | None:
    """Of the first suite that has classes."""
    for name, entry in suites.items():
        changes = entry.first.class_changes if entry.protocols else ()
        rows = [change for change in changes if change.change.top1.interval]
        if not rows:
            continue
        moved = [row for row in rows if row.gain]
        both_ends = moved if len(moved) <= 2 * _ENDS else moved[:_ENDS] + moved[-_ENDS:]
        return ChangedClasses(
            suite=name,
            gained=sum(row.gain > 0 for row in rows),
            lost=sum(row.gain < 0 for row in rows),
            same=sum(row.gain == 0 for row in rows),
            decided=sum(row.change.top1.decided != 0 for row in rows),
            chart=charts.changes({row.name: row.moved for row in both_ends}) if both_ends else None,
        )
    return None
