"""Tables: no difference without its interval, and a row for every suite."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refocus.evaluation import prove
from refocus.evaluation.plan import How, Plan
from refocus.figures.tables import Row, accuracy_rows, as_csv, markdown
from tests.makers import Build


def test_no_difference_is_shown_without_its_interval() -> None:
    row = Row("a", "top-1", 1, 50.0, None, "", 40.0, 10.0, None)
    assert row.difference_text == "-"
    assert row.decided == 0
    assert Row("a", "", 9, 1.0, [0, 2], "", 0.0, 1.0, [0.1, 2.0]).decided == 1
    assert Row("a", "", 9, 1.0, [0, 2], "", 0.0, -1.0, [-2.0, -0.1]).decided == -1
    assert (
        Row("a", "", 9, 1.0, [0, 2], "", 0.0, 1.0, [0.1, 2.0], chance=0.125).decided == 0
    )  # 4 to 0 proves nothing
    assert "| 40.0 | - | - |" in markdown([row])
    assert as_csv([row]).splitlines()[1] == "a,top-1,,1,50.0,,,40.0,,,"


def test_numbers_of_every_suite_have_a_row(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    plan = Plan(
        {"a": images}, {"a": masks}, ("only-fg", "rotation"), protocols=("standard", "paper")
    )
    entries = prove.prove({"model": tiny()}, plan, How(tmp_path, quiet=True))
    rows = accuracy_rows(entries)
    assert [(r.name, r.protocol) for r in rows] == [
        ("a", "standard"),
        ("a", "paper"),
        ("a: only-fg", "standard"),
        ("a: rotation (mean)", "standard"),
    ]
    assert all(np.isfinite(r.value) and r.interval for r in rows)
