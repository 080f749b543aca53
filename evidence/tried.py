"""The table of what was tried: development images alone, each line against another method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from evidence.methods import METHODS
from evidence.rows import END, WISE, Cell, Development, Row

PHASE = "try"
_READINGS = {WISE: "50/50", END: "last"}
_RANGE_FROM = 2  # draws; of fewer there is none


@dataclass(frozen=True)
class Line:
    """A method's rows by draw, and those of what it is compared with."""

    method: str
    rate: float
    draws: Mapping[int, Row]
    others: Mapping[int, Row]


def tried(
    rows: Sequence[Row], data: str, methods: Sequence[str], against: str, images: Sequence[int]
) -> str:
    """A table as Markdown, "" where there are no rows.

    Each reading has top-1 on development images as they are and on other backgrounds, the mean over
    draws (those alone in which `against` was run, where there are any), and how the mean of both
    differs from that of `against` in the same draws: the mean, and the lowest and highest draw.
    Each method at its default rate is compared with `against` at its own, and at any other rate
    with `against` at the same.
    """
    found = [
        r for r in rows if r.cell.phase == PHASE and r.cell.data == data and r.cell.images in images
    ]
    first = {_place(r.cell, r.cell.rate): r for r in found if r.cell.method == against}
    lines = [
        line
        for name in methods
        for rate in sorted({r.cell.rate for r in found if r.cell.method == name})
        if (line := _line(name, rate, found, first, against)).draws
    ]
    if not lines:
        return ""
    columns = [f"{name}, {title}" for title in _READINGS.values() for name in ("own", "other")]
    changes = [f"change, {title}" for title in _READINGS.values()]
    head = ["method", "what", "rate", *columns[:2], changes[0], *columns[2:], changes[1], "draws"]
    text = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for line in sorted(lines, key=lambda one: -_score(one, WISE)):
        text.append(f"| {' | '.join(_cells(line, against))} |")
    return "\n".join(text)


def _place(cell: Cell, rate: float) -> tuple[int, int, float]:
    return cell.images, cell.draw, rate


def _line(
    name: str,
    rate: float,
    rows: Sequence[Row],
    first: Mapping[tuple[int, int, float], Row],
    against: str,
) -> Line:
    mine = {
        r.cell.draw: r
        for r in rows
        if r.cell.method == name and r.cell.rate == rate and r.development
    }
    usual = rate == METHODS[name].rate
    compared = METHODS[against].rate if usual else rate
    others = {
        draw: first[place]
        for draw, r in mine.items()
        if (place := _place(r.cell, compared)) in first
    }
    kept = {draw: r for draw, r in mine.items() if draw in others} if others else mine
    return Line(name, rate, kept, others)


def _at(row: Row, reading: str) -> Development:
    return next(d for d in row.development if d.share == row.shares[reading])


def _score(line: Line, reading: str) -> float:
    return mean(_at(r, reading).score for r in line.draws.values())


def _cells(line: Line, against: str) -> list[str]:
    what = "unchanged" if line.method == against else METHODS[line.method].about
    cells = [line.method, what, f"{line.rate:g}"]
    for reading in _READINGS:
        found = [_at(r, reading) for r in line.draws.values()]
        cells += [f"{mean(d.plain for d in found):.1f}", f"{mean(d.swapped for d in found):.1f}"]
        cells.append("" if line.method == against else _change(line, reading))
    return [*cells, str(len(line.draws))]


def _change(line: Line, reading: str) -> str:
    changes = [
        _at(line.draws[draw], reading).score - _at(other, reading).score
        for draw, other in line.others.items()
    ]
    if not changes:
        return ""
    text = f"{mean(changes):+.1f}"
    if len(changes) < _RANGE_FROM:
        return text
    return f"{text} ({min(changes):+.1f} to {max(changes):+.1f})"
