"""The three answers follow from the numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from refocus.flow import answers, results
from refocus.records import to_json
from refocus.reports.headline import shots_of
from refocus.results import (
    Accuracy,
    AccuracyChange,
    Audit,
    Background,
    Change,
    Classification,
    Compared,
    Estimate,
    Evaluation,
    Reliance,
    ShiftEntry,
    SuiteEntry,
)
from refocus.tuning.results import TuneResults, Verdict
from tests.makers import tune_results

NONE = Estimate(None, None, 0)


def _answered(before: float, after: float, low: float, high: float) -> Classification:
    now, then = (
        Accuracy(Estimate(value, (value - 3, value + 3), 90), NONE, NONE, {})
        for value in (after, before)
    )
    change = Change(after - before, (low, high), 90, p=0.5 if low < 0 < high else 0.01)
    nothing = Change(None, None, 0)
    return Classification(now, then, AccuracyChange(change, nothing))


def _evaluation(swapped: Classification, **tests: Classification) -> Evaluation:
    own = SuiteEntry(
        "classification",
        90,
        {"standard": _answered(80, 80, -2, 2)},
        shifts={"mixed-rand": ShiftEntry("", 10.0, swapped)},
    )
    more = {n: SuiteEntry("classification", 90, {"standard": a}) for n, a in tests.items()}
    return Evaluation("tuned", "original", 0, {"held-out": own, **more})


KEPT = tune_results(chosen_share=0.0, advised_share=0.0, verdict=Verdict(False, 0.0, "Keep it."))
BETTER = _answered(40, 60, 12, 28)
WORSE = _answered(80, 70, -15, -5)


def _audit(low: float, high: float, p: float, fall: tuple[float, float]) -> Audit:
    found = Reliance(
        bg_gap=Estimate((low + high) / 2, (low, high), 90),
        bg_gap_p=p,
        confidence_change=Estimate(sum(fall) / 2, fall, 90),
        plain=Estimate(85.0, None, 90),
        mixed_same=Estimate(80.0, None, 90),
        mixed_rand=Estimate(60.0, None, 90),
    )
    entry = SuiteEntry("classification", 90, background=Background(found))
    return Audit("m", "i", "k", False, 0, "the audit's sentence", entry, (), ())


@pytest.mark.parametrize(
    ("audit", "answer"),
    [
        (_audit(10, 30, 0.001, (-0.2, -0.1)), "Yes"),
        (_audit(-5, 8, 0.4, (-0.2, -0.1)), "In its confidence"),
        (_audit(-5, 8, 0.4, (-0.2, 0.1)), "No evidence"),
        (_audit(1, 9, 0.2, (-0.2, 0.1)), "No evidence"),
    ],
)
def test_whether_it_relies_on_the_background(audit: Audit, answer: str) -> None:
    found = answers.answers(audit, tune_results(), _evaluation(BETTER))[0]
    assert (found.answer, found.why) == (answer, "the audit's sentence")


@pytest.mark.parametrize(
    ("tuning", "swapped", "answer"),
    [
        (tune_results(), BETTER, "Yes"),
        (tune_results(), _answered(40, 42, -3, 7), "No evidence"),
        (tune_results(), _answered(60, 40, -28, -12), "No, it harmed"),
        (KEPT, BETTER, "Nothing changed"),
    ],
)
def test_whether_tuning_helped(tuning: TuneResults, swapped: Classification, answer: str) -> None:
    found = answers.answers(_audit(10, 30, 0.01, (-1, -1)), tuning, _evaluation(swapped))[1]
    assert found.answer == answer
    if answer == "Yes":
        assert "from 40.0 to 60.0 % (+20.0 points, 95 %: +12.0 to +28.0; n = 90)" in found.why


@pytest.mark.parametrize(
    ("tuning", "swapped", "test", "answer", "why"),
    [
        (tune_results(), BETTER, _answered(80, 79, -4, 2), "Yes", ""),
        (tune_results(), BETTER, WORSE, "No, a test contradicts it", "street (80.0 to 70.0 %"),
        (
            tune_results(),
            WORSE,
            _answered(80, 79, -4, 2),
            "No, a test contradicts it",
            "held-out with other-class backgrounds (80.0 to 70.0 %",
        ),
        (KEPT, BETTER, _answered(80, 90, 5, 15), "No, keep the original", ""),
    ],
)
def test_whether_to_ship_it(
    tuning: TuneResults, swapped: Classification, test: Classification, answer: str, why: str
) -> None:
    report = _evaluation(swapped, street=test)
    found = answers.answers(_audit(10, 30, 0.01, (-1, -1)), tuning, report)[2]
    assert (found.answer, answers.ships(tuning, report)) == (answer, answer == "Yes")
    assert why in found.why


def test_a_run_that_was_moved_names_the_model_where_it_lies(tmp_path: Path) -> None:
    audit, report = _audit(10, 30, 0.01, (-1, -1)), _evaluation(BETTER)
    for ship, model in ((True, str(tmp_path / "tune" / "model")), (False, "original")):
        found = results.RunResult(
            model="old/tune/model" if ship else "original",
            ship=ship,
            answers=answers.answers(audit, tune_results(), report),
            masks=None,
            audit=audit,
            tuning=tune_results(),
            report=report,
            folder="old",
        )
        (tmp_path / "run.json").write_text(json.dumps(to_json(found)))
        moved = results.read(tmp_path)
        assert (moved.folder, moved.model) == (str(tmp_path), model)


def test_how_many_images_were_trained_on_is_said_of_classes_with_fewer() -> None:
    results = tune_results(trained_classes=("ant", "bee"))
    assert shots_of(6, 3, results) == "6 (3 each of 2 classes)"
    assert shots_of(5, 3, results) == "5 (at most 3 each of 2 classes)"


def test_a_report_of_the_original_alone_has_nothing_to_compare() -> None:
    alone = replace(_answered(40, 40, 0, 0), against=None, change=None)
    report = _evaluation(alone)
    assert answers.swapped(report) == Compared(alone.model.top1)
    assert (
        answers.answers(_audit(1, 2, 0.5, (0, 0)), tune_results(), report)[1].answer == "Not known"
    )
