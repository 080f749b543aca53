"""Tables: no difference without its interval, and a row for every suite."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refocus.evaluation import prove
from refocus.evaluation.plan import Plan
from refocus.figures.tables import Row, accuracy_rows, as_csv, markdown, other_rows
from refocus.results import (
    Accuracy,
    Change,
    Classification,
    Compared,
    Estimate,
    SuiteEntry,
)
from tests.makers import Build


def test_no_difference_is_shown_without_its_interval() -> None:
    one, other = Estimate(50.0, None, 1), Estimate(40.0, None, 1)
    row = Row("a", "top-1", Compared(one, other, Change(10.0, None, 1)))
    assert row.difference_text == "-"
    assert row.decided == 0
    for change, decided in (
        (Change(1.0, (0.1, 2.0), 9), 1),
        (Change(-1.0, (-2.0, -0.1), 9), -1),
        (Change(1.0, (0.1, 2.0), 9, p=0.125), 0),  # 4 to 0 proves nothing
        (Change(1.0, (0.04, 2.0), 9), 0),  # reads "+0.0 to +2.0"
        (Change(-1.0, (-2.0, -0.04), 9), 0),
    ):
        assert Row("a", "", Compared(one, other, change)).decided == decided
    assert "| 40.0 | - | - |" in markdown([row])
    assert as_csv([row]).splitlines()[1] == "a,top-1,,1,50.0,,,40.0,,,"


def test_few_images_are_marked() -> None:
    few, enough = (Row("a", "top-1", Compared(Estimate(50.0, (40.0, 60.0), n))) for n in (29, 30))
    assert "| 29 (few) |" in markdown([few])
    assert "| 30 |" in markdown([enough])
    assert as_csv([few]).splitlines()[1].startswith("a,top-1,,29,")


def test_a_calibration_error_below_0_is_shown_as_0_and_said() -> None:
    nothing = Estimate(None, None, 0)
    below, above = (
        Accuracy(nothing, nothing, Estimate(value, (0.0, 0.01), 100), {})
        for value in (-0.0062, 0.005)
    )
    change = Change(-0.0112, (-0.02, 0.0), 100)
    for model, against, shown, note in (
        (below, above, "| 0.0000 | 0.0000 to 0.0100 | 0.0050 | -0.0112 |", True),
        (above, below, "| 0.0050 | 0.0000 to 0.0100 | 0.0000 | -0.0112 |", True),
        (above, above, "| 0.0050 | 0.0000 to 0.0100 | 0.0050 | -0.0112 |", False),
    ):
        answers = Classification(model, against, calibration_change=change)
        entry = SuiteEntry("classification", 100, {"standard": answers})
        (row,) = [r for r in other_rows({"a": entry}) if "calibration" in r.measure]
        assert row.measure.endswith("(0: none beyond chance)") == note
        assert shown in markdown([row])


def test_numbers_of_every_suite_have_a_row(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    plan = Plan(
        {"a": images},
        {"a": masks},
        ("only-fg", "rotation"),
        protocol="both",
        quiet=True,
    )
    entries = prove.prove({"model": tiny()}, plan, tmp_path)
    rows = accuracy_rows(entries)
    assert [(r.name, r.protocol) for r in rows] == [
        ("a", "standard"),
        ("a", "paper"),
        ("a: only-fg", "standard"),
        ("a: rotation (mean)", "standard"),
    ]
    assert all(np.isfinite(r.number.model.value) and r.number.model.interval for r in rows)


def test_every_number_names_its_protocol(
    tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    swaps = ("mixed-same", "mixed-rand")
    plan = Plan({"a": images}, {"a": masks}, swaps, protocol="paper", quiet=True)
    entries = prove.prove({"model": tiny()}, plan, tmp_path)
    named = {row.measure: row.protocol for row in other_rows(entries)}
    assert named["BG-gap, points"] == named["change of confidence"] == "standard"
    assert named["map: mean IoU"] == named["pointing game"] == "paper"
    assert all(named.values())
