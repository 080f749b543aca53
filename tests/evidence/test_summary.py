"""The first table of the README: one setting on every data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from evidence import summary
from evidence.tables import ROWS, committed


def test_the_readme_shows_what_the_committed_rows_give(tmp_path: Path) -> None:
    summary.main(["--check"])
    page = tmp_path / "README.md"
    page.write_text(summary.README.read_text(encoding="utf-8").replace("6 images, ", "5 images, "))
    with pytest.raises(SystemExit, match="not what the rows give"):
        summary.main(["--check", "--page", str(page)])
    summary.main(["--page", str(page)])
    assert page.read_text(encoding="utf-8") == summary.README.read_text(encoding="utf-8")


def test_a_line_names_its_images_and_draws_and_says_what_was_not_measured() -> None:
    rows = committed(ROWS)
    lines = summary.summary(rows, "half").splitlines()
    assert "6 images, 5 draws" in next(line for line in lines if "Waterbirds" in line)
    without = [r for r in rows if (r.cell.data, r.cell.method) != ("bar", "refocus")]
    (bar,) = [x for x in summary.summary(without, "half").splitlines() if "BAR" in x]
    assert "| not measured |" in bar
    assert "60 images, 5 draws" in bar
    nothing = [r for r in rows if r.cell.data != "planted2"]
    (second,) = [x for x in summary.summary(nothing, "half").splitlines() if "second" in x]
    assert second.endswith(" | not measured" * 4 + " |")
