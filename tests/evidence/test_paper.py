"""docs/paper.md shows the numbers that are committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from evidence import paper
from refocus.results import Change, Estimate
from refocus.studies.results import AVERAGE, Line
from refocus.studies.writing import csv_of, flat, markdown

LINES = [
    Line("m", "original", "natural", "top1", Estimate(77.3, (72.0, 82.0), 300), paper=81.5),
    Line(
        "m",
        "published objective",
        "natural",
        "top1",
        Estimate(80.0, None, 300),
        Change(2.7, (-1.0, 6.4), 300),
        0.4,
        3,
        80.3,
        -1.2,
        "trained",
    ),
    Line(AVERAGE, "published objective", "natural", "top1", Estimate(None, None, 300)),
]


def test_lines_come_back_from_the_csv(tmp_path: Path) -> None:
    (tmp_path / "table1.csv").write_text(csv_of([flat(line) for line in LINES]))
    assert paper.lines_of(tmp_path / "table1.csv") == LINES


def test_a_table_that_is_not_what_the_numbers_give_is_named(tmp_path: Path) -> None:
    (tmp_path / "table1.csv").write_text(csv_of([flat(line) for line in LINES]))
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- study: table1 -->\n| 99 |\n<!-- end -->\nAfter.\n")
    given = ["--page", str(page), "--numbers", str(tmp_path)]
    with pytest.raises(SystemExit, match="not what the numbers give: table1"):
        paper.main([*given, "--check"])
    paper.main(given)
    assert f"<!-- study: table1 -->\n\n{markdown(LINES)}\n<!-- end -->\nAfter." in page.read_text()
    paper.main([*given, "--check"])


def test_the_page_shows_what_is_committed() -> None:
    paper.main(["--check"])
    text = paper.PAGE.read_text(encoding="utf-8")
    shown = [f"Table {n}" for n in range(1, 13)] + [f"Figure {n}" for n in range(1, 16)]
    assert [title for title in shown if f"### {title}\n" not in text] == []
    for picture in (paper.PAGE.parent / "paper").iterdir():
        assert f"(paper/{picture.name})" in text
        assert picture.stat().st_size < 60_000
