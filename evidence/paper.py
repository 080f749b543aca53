"""The tables of docs/paper.md, from the numbers of `refocus study` that are committed.

    python -m evidence.paper            write the tables anew (`make results`)
    python -m evidence.paper --check    say which are not what the numbers give; status 1

A table stands between two comments, of which the first names the file in results/paper/, which is
the NAME.csv that a study wrote:

    <!-- study: planted/table2 -->
    <!-- end -->
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from refocus.results import Change, Estimate
from refocus.studies.results import Line
from refocus.studies.writing import markdown

ROOT = Path(__file__).parents[1]
NUMBERS = ROOT / "results" / "paper"
PAGE = ROOT / "docs" / "paper.md"
_BLOCK = re.compile(r"(<!-- study: (\S+) -->\n)(.*?)(<!-- end -->)", re.S)


def lines_of(file: Path) -> list[Line]:
    """The lines of a study's table, as its CSV holds them."""
    with file.open(encoding="utf-8", newline="") as source:
        return [_line(row) for row in csv.DictReader(source)]


def _line(row: Mapping[str, str]) -> Line:
    def number(key: str) -> float | None:
        return float(row[key]) if row[key] else None

    def interval(low: str, high: str) -> tuple[float, float] | None:
        ends = number(low), number(high)
        return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])

    count, moved = int(row["n"]), number("change")
    return Line(
        row["model"],
        row["method"],
        row["suite"],
        row["metric"],
        Estimate(number("value"), interval("low", "high"), count),
        None if moved is None else Change(moved, interval("change_low", "change_high"), count),
        number("std"),
        int(row["draws"]),
        number("paper"),
        number("paper_change"),
        row["classes"],  # type: ignore[arg-type]
    )


def rendered(text: str, numbers: Path = NUMBERS) -> str:
    """A page with its tables made anew."""
    return _BLOCK.sub(
        lambda m: f"{m[1]}\n{markdown(lines_of(numbers / f'{m[2]}.csv'))}\n{m[4]}", text
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evidence.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--numbers", type=Path, default=NUMBERS)
    given = parser.parse_args(arguments)
    before = given.page.read_text(encoding="utf-8")
    after = rendered(before, given.numbers)
    pairs = zip(_BLOCK.finditer(before), _BLOCK.finditer(after), strict=True)
    stale = [old[2] for old, new in pairs if old[0] != new[0]]
    if given.check and stale:
        raise SystemExit("not what the numbers give: " + ", ".join(stale))
    given.page.write_text(after, encoding="utf-8")
    print(f"{len(stale)} tables {'differ' if given.check else 'were changed'}")


if __name__ == "__main__":
    main()
