"""One setting on every data set, a line each: the first table of README.md, from committed rows.

    python -m evidence.summary            write the table anew (`make results`)
    python -m evidence.summary --check    say whether it is not what the rows give; status 1

The table stands between `<!-- summary: READING -->` and `<!-- end -->`; the readings are those of
`evidence.rows.READINGS`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evidence.intervals import estimate
from evidence.rows import Row
from evidence.tables import (
    ROOT,
    ROWS,
    Asked,
    Group,
    before,
    change_text,
    committed,
    groups,
    measures,
    value_text,
)

README = ROOT / "README.md"
FEW, UNLABELLED, MORE = "few", "unlabelled", "more"
COLUMNS = {  # what a column is called here -> its method, its head
    FEW: ("refocus", "`refocus`, 3 labelled images a class"),
    UNLABELLED: ("consistency", "`consistency`, more images, no labels"),
    MORE: ("refocus", "`refocus`, more labelled images"),
}
_BLOCK = re.compile(r"(<!-- summary: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)


@dataclass(frozen=True)
class Line:
    """A line of the table: which number of a data set, and what each method was given.

    Args:
        data: the data set.
        words: what its test images are.
        column: the test, as the tables call it.
        given: column -> images a class (0: the whole pool), and of all or half of the classes.
    """

    data: str
    words: str
    column: str
    given: dict[str, tuple[int, str]]


LINES = (
    Line(
        "planted",
        "planted shortcut: objects on other classes' backgrounds",
        "shuffled",
        {FEW: (3, "half"), UNLABELLED: (0, "all"), MORE: (0, "all")},
    ),
    Line(
        "planted2",
        "second planted shortcut: other objects, other backgrounds",
        "shuffled",
        {FEW: (3, "half"), UNLABELLED: (0, "all"), MORE: (0, "all")},
    ),
    Line(
        "waterbirds",
        "Waterbirds: birds in the other place",
        "conflict",
        {FEW: (3, "all"), UNLABELLED: (10, "all"), MORE: (50, "all")},
    ),
    Line(
        "bar",
        "BAR: actions in other places, photographs",
        "ood",
        {FEW: (3, "all"), UNLABELLED: (10, "all"), MORE: (50, "all")},
    ),
    Line(
        "caltech100",
        "Caltech-100, no shortcut planted",
        "test",
        {FEW: (3, "half"), UNLABELLED: (3, "all"), MORE: (3, "all")},
    ),
)


def summary(rows: Sequence[Row], reading: str) -> str:
    """The table as Markdown."""
    heads = ["test images", "original", *(head for _, head in COLUMNS.values())]
    text = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for line in LINES:
        cells = [_cell(rows, line, column, reading) for column in COLUMNS]
        text.append(f"| {line.words} | {_plain(rows, line, reading)} | {' | '.join(cells)} |")
    return "\n".join(text)


def _asked(line: Line, column: str, reading: str) -> Asked:
    (images, classes), (name, _) = line.given[column], COLUMNS[column]
    return Asked(line.data, (images,), reading=(reading,), classes=classes, methods=("base", name))


def _found(rows: Sequence[Row], line: Line, column: str, reading: str) -> list[Group]:
    """The base model, then the method where it was run."""
    return groups(rows, _asked(line, column, reading))


def _plain(rows: Sequence[Row], line: Line, reading: str) -> str:
    """The base models of the first column's draws, else what there is."""
    for column in COLUMNS:
        wanted = _asked(line, column, reading)
        found = _found(rows, line, column, reading)
        if not found:
            return "not measured"
        base, *others = found
        pair = before(others[0], rows, wanted) if others else None
        if pair:
            base = pair[1]
            break
    return value_text(estimate(measures(Asked(line.data))[line.column](base)), alone=False)


def _cell(rows: Sequence[Row], line: Line, column: str, reading: str) -> str:
    """A value, its change with interval, and on how many images and draws it rests."""
    wanted = _asked(line, column, reading)
    group = next((g for g in _found(rows, line, column, reading) if g.method != "base"), None)
    pair = group and before(group, rows, wanted)
    if not group or not pair:
        return "not measured"
    measure = measures(wanted)[line.column]
    value = value_text(estimate(measure(group)), alone=False)
    change = change_text(estimate(measure(pair[0]) - measure(pair[1])))
    counts = sorted({row.used_count for row in group.draws.values()})
    images = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    return f"{value} {change}; {images} images, {len(group.draws)} draws"


def rendered(text: str, rows: Sequence[Row]) -> str:
    """A document with its summaries made anew."""
    return _BLOCK.sub(lambda m: f"{m[1]}{summary(rows, m[2])}\n{m[4]}", text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evidence.summary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rows", type=Path, default=ROWS, help="folder of field-DATA.jsonl.gz")
    parser.add_argument("--page", type=Path, default=README)
    given = parser.parse_args(arguments)
    old = given.page.read_text(encoding="utf-8")
    new = rendered(old, committed(given.rows))
    if given.check and old != new:
        raise SystemExit(f"{given.page}: not what the rows give; run `make results`")
    given.page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
