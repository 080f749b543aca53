"""Means, paired differences and headlines of probes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refocus.errors import InputError
from refocus.files import read_json, write_json
from refocus.probes.results import Counting, ProbeResult, compared, read, write
from refocus.records import ProbeRecord, to_json


def test_results_are_means_with_paired_differences_and_gaps_left_out() -> None:
    ours = [
        ProbeRecord(f"{i}", {"a": [1.0, float(i % 2), None if i == 0 else 1.0]}) for i in range(4)
    ]
    # another order, one more
    theirs = [ProbeRecord(f"{i}", {"a": [1.0, 0.0, 0.0]}) for i in (3, 2, 1, 0, 9)]
    levels = {"model": [0, 1, 2], "against": [0, 1, 2]}
    found = compared({"model": ours, "against": theirs}, levels, Counting(100, 1))
    points, headline = found.model.series["a"], found.headline
    assert [p.value for p in points] == [100, 50, 100]
    assert [p.n for p in points] == [4, 4, 3]
    assert [p.deviation for p in points] == [0, 50, 0]
    assert found.changes is not None
    assert found.changes["a"][1].difference == 50
    assert found.changes["a"][2].difference == 100
    assert headline.model.value == pytest.approx((0 + 100 + 50 + 100) / 4)
    assert headline.change.difference == pytest.approx((0 + 100 + 50 + 100) / 4)
    assert headline.change.n == 4
    low, high = headline.change.interval
    assert low < headline.change.difference < high


def test_models_of_other_depth_have_curves_of_their_own() -> None:
    ours = [ProbeRecord(f"{i}", {"a": [1.0, 0.0]}) for i in range(3)]
    theirs = [ProbeRecord(f"{i}", {"a": [1.0, 1.0, 0.0]}) for i in range(3)]
    levels = {"model": ["1", "2"], "against": ["1", "2", "3"]}
    found = compared({"model": ours, "against": theirs}, levels, Counting(100, 0))
    assert found.changes is None
    assert found.headline.change.difference == pytest.approx(50 - 200 / 3)


def test_a_loss_that_never_differs_has_no_interval() -> None:
    rows = [ProbeRecord(f"{i}", {"loss": [0.5, float(i)]}) for i in range(5)]
    levels = {"model": [0, 1], "against": [0, 1]}
    found = compared({"model": rows, "against": rows}, levels, Counting(1, 1))
    assert found.headline.change.difference == 0
    assert found.headline.change.interval is None
    assert found.model.series["loss"][0].interval is None
    low, high = found.model.series["loss"][1].interval
    assert 0 < low < 2 < high < 4


def test_a_headline_may_count_one_series_alone() -> None:
    rows = [ProbeRecord(f"{i}", {"a": [1.0], "b": [0.0]}) for i in range(3)]
    found = compared({"model": rows}, {"model": ["x"]}, Counting(100, 0, ("a",)))
    assert found.headline.model.value == 100
    assert found.headline.change is None


# --- the file -----------------------------------------------------------------------------------


def made(*, paired: bool) -> ProbeResult:
    rows = [ProbeRecord(f"{i}", {"a": [1.0, float(i % 2)]}) for i in range(4)]
    records = {"model": rows, **({"against": rows} if paired else {})}
    levels: dict[str, list[Any]] = {which: [0, 0.5] for which in records}
    numbers = compared(records, levels, Counting(100, 1), lambda means: {"mce": means["a"][1]})
    models = dict.fromkeys(records, "folder")
    return ProbeResult("cutout", "about", "source", "x", "top-1, %", True, models, numbers)


@pytest.mark.parametrize("paired", [False, True])
def test_a_result_is_read_as_it_was_written(paired: bool, tmp_path: Path) -> None:
    write(tmp_path / "result.json", made(paired=paired))
    assert read(tmp_path / "result.json") == made(paired=paired)
    assert read_json(tmp_path / "result.json")["schema"] == 1


def as_before(found: ProbeResult) -> dict[str, Any]:
    """`result.json` as it was before it had a schema."""
    numbers, content = found.numbers, to_json(found)
    both = {"model": numbers.headline.model, "against": numbers.headline.against}
    headline: dict[str, Any] = {
        which: {**to_json(estimate), "deviation": 1.0}
        for which, estimate in both.items()
        if estimate
    }
    for name in ("numbers", "schema"):
        del content[name]
    content |= {
        "levels": {which: curves.levels for which, curves in numbers.curves.items()},
        "n": {which: curves.n for which, curves in numbers.curves.items()},
        "curves": {which: to_json(curves.series) for which, curves in numbers.curves.items()},
        "summary": {which: curves.summary for which, curves in numbers.curves.items()},
        "headline": headline,
    }
    if numbers.headline.change:
        change = {"difference": 0.0, "difference_interval": list(numbers.headline.change.interval)}
        headline |= change
        content["differences"] = {"a": [change, change]}
    return content


@pytest.mark.parametrize("paired", [False, True])
def test_results_of_the_time_before_schemas_are_read(paired: bool, tmp_path: Path) -> None:
    truth = made(paired=paired)
    write_json(tmp_path / "result.json", as_before(truth))
    found = read(tmp_path / "result.json")
    assert found.numbers.curves == truth.numbers.curves
    assert found.numbers.headline.model == truth.numbers.headline.model
    if paired:
        change = truth.numbers.headline.change
        assert change is not None
        assert found.numbers.headline.change == replace(change, p=None)  # there was no test
        assert [c.difference for c in found.numbers.changes["a"]] == [0, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "not what refocus writes"),
        ({}, "not what refocus writes"),
        ({"curves": 3}, "not what refocus writes"),
        ({"schema": 1}, "not what refocus writes"),
        ({"numbers": {"model": {"n": "four"}}}, "not what refocus writes"),
        ({"schema": 2}, "schema 2 is of a newer refocus"),
    ],
)
def test_other_files_are_refused_in_one_line(content: Any, message: str, tmp_path: Path) -> None:
    whole = to_json(made(paired=False))
    if isinstance(content, dict) and ("numbers" in content or content.get("schema") == 2):
        content = {**whole, **content}
    write_json(tmp_path / "result.json", content)
    with pytest.raises(InputError, match=message) as refused:
        read(tmp_path / "result.json")
    assert "result.json" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("fell", [4, 6])
def test_few_changed_images_decide_nothing(fell: int) -> None:
    """Four of 200 that fall at every level, and none that rises: p = 0.125, as with answers."""
    whole = [ProbeRecord(f"{i}", {"a": [1.0, 1.0, 1.0]}) for i in range(200)]
    worse = [ProbeRecord(r.image, {"a": [1.0, 0.0, i / 9]}) for i, r in enumerate(whole[:fell])]
    levels = {"model": [0, 1, 2], "against": [0, 1, 2]}
    rows = {"model": worse + whole[fell:], "against": whole}
    change = compared(rows, levels, Counting(100, 1)).headline.change
    assert change is not None
    assert change.p == 2 * 0.5**fell
    assert change.decided == -(fell == 6)
