"""The list of probes and their page."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from refocus.cli import main as command
from refocus.figures.charts import Chart
from refocus.probes import page, registry
from refocus.probes.curves import curve, thumbnail
from refocus.probes.results import Curves, Numbers, Point, ProbeResult
from refocus.results import Change, Compared, Estimate
from tests.probes.makers import run


def test_the_list_and_the_report(folders: dict[str, Path], tmp_path: Path) -> None:
    listed = CliRunner().invoke(command.app, ["probes"], env={"COLUMNS": "200"}).output
    for name in registry.PROBES:
        assert name in listed
    run(
        "--model",
        folders["model"],
        "--images",
        folders["images"],
        "--out",
        tmp_path / "o",
        "--kind",
        "cutout",
        "--most",
        4,
    )
    written = (tmp_path / "o" / "probes.html").read_text()
    assert "None of the" in written or "robustness test" in written
    assert "n = 4 images." in written
    assert "one line per image in <code>cutout/model.jsonl</code>." in written
    (tmp_path / "o" / "probes.html").unlink()
    result = CliRunner().invoke(
        command.app, ["report", str(tmp_path / "o")], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert (tmp_path / "o" / "probes.html").read_text() == written


def result(low: float) -> ProbeResult:
    """Accuracies that rise by 5 points, at least by `low`."""
    points = [Point(50.0, (40.0, 60.0), 50, 1.0)] * 2
    curves = Curves([0, 1], 50, {"": points}, {})
    change = Change(5.0, (low, 9.0), 50)
    number = Compared(Estimate(55.0, None, 50), Estimate(50.0, None, 50), change)
    numbers = Numbers(curves, curves, number, None)
    models = {"model": "a", "against": "b"}
    return ProbeResult("cutout", "", "", "area of the hole", "top-1, %", True, models, numbers)


def test_a_bound_that_reads_0_is_not_marked_better() -> None:
    chart = Chart("", "")
    for low, improved in ((0.04, 0), (0.06, 1)):
        found = result(low)
        section = page.Section("cutout", found, page.row(found), chart, "", "", [])
        assert section.improved == improved


def test_the_verdict_does_not_claim_what_many_tests_cannot_show() -> None:
    chart = Chart("", "")
    some = [
        page.Section("a", found, page.row(found), chart, "", "", []) for found in (result(1.0),) * 3
    ]
    said = page._verdict(some, paired=True)
    assert said.startswith("3 of 3 robustness tests are better after tuning (a, a, a)")
    assert "each is judged at 5 % by itself" in said
    sure = result(1.0).numbers.headline
    by_chance = replace(sure, change=replace(sure.change, p=0.125))
    unsure = replace(result(1.0), numbers=replace(result(1.0).numbers, headline=by_chance))
    none = page.Section("a", unsure, page.row(unsure), chart, "", "", [])
    assert page._verdict([none], paired=True).endswith("shows a change beyond chance")


def test_axes_have_names_and_units() -> None:
    labels = {"model": "tuned", "against": "original"}
    for width in (8.6, 4.4):
        drawn = curve(result(1.0), labels, width)
        assert drawn.get_supxlabel() == "area of the hole"
        assert drawn.get_supylabel() == "top-1, %"
    for name, row in registry.PROBES.items():
        assert row.xlabel, name
        assert row.unit.strip("% "), name


def test_a_level_without_any_number_stays_empty_in_the_small_curve() -> None:
    points = [Point(50.0, (40.0, 60.0), 9, 1.0), Point(None, None, 0, None)]
    numbers = Numbers(
        Curves([2, 4], 9, {"": points}, {}), None, Compared(Estimate(50, None, 9)), None
    )
    small = thumbnail(replace(result(1.0), numbers=numbers), ())
    drawn = small.axes[0].lines[0].get_ydata()
    assert drawn[0] == 50
    assert math.isnan(drawn[1])
