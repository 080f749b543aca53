"""`results.json` of a run: out and in, also as earlier versions wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import refocus
from refocus.records import to_json
from refocus.results import Change, Compared, Estimate
from refocus.tuning.results import Candidate, results_of
from tests.makers import tune_results

# as version 0.1 wrote it
FIRST: dict[str, Any] = {
    "model": "hub/vit",
    "objective": "refocus",
    "lr": 1e-5,
    "best_epoch": 3,
    "check_images": 60,
    "tolerance": 1.0,
    "candidates": [
        {
            "share": 0.0, "in_domain": 78.0, "swapped": 53.6, "corrected": 0, "broken": 0,
            "chance": 1.0, "relevance_loss": 0.5,
        },
        {
            "share": 0.5, "in_domain": 80.0, "swapped": 64.5, "corrected": 28, "broken": 8,
            "chance": 0.003, "relevance_loss": None,
        },
    ],
    "advised_share": 0.5,
    "chosen_share": 0.5,
    "finding": "tuning helped: top-1 78.0 -> 80.0 %",
    "trained_classes": ["ant"],
}  # fmt: skip


def test_results_survive_the_file(tmp_path: Path) -> None:
    number = Compared(Estimate(60.0, (50.0, 70.0), 24), Estimate(55.0, None, 24), None)
    results = tune_results(
        candidates=(
            Candidate(0.0, number, number),
            Candidate(1.0, number, number, 1.5, -2.0, True),
        ),
        trained_classes=("ant", "bee"),
        unseen={"plain": number},
    )
    (tmp_path / "results.json").write_text(json.dumps(to_json(results)))
    assert results_of(tmp_path) == results
    assert results.schema == 2


def test_results_of_the_first_version_are_read(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(FIRST))
    found = results_of(tmp_path)
    assert found.schema == 1
    assert found.verdict.ship
    assert found.verdict.sentence.startswith("tuning helped: top-1 78.0 -> 80.0 % (judged by")
    half = found.candidates[1]
    assert (half.share, half.stands, half.most_lost) == (0.5, True, None)
    assert half.in_domain.model == Estimate(80.0, None, 60)
    assert half.swapped.change == Change(pytest.approx(10.9), None, 60, corrected=28, broken=8)


def test_what_is_no_result_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({**FIRST, "lr": "fast"}))
    with pytest.raises(refocus.InputError, match=r"results\.json: not what refocus writes"):
        results_of(tmp_path)


@pytest.mark.parametrize(
    "candidates", [5, [3], {"a": 1}, [{"in_domain": "x"}], [{"in_domain": None}]]
)
def test_garbage_without_a_schema_is_refused_too(candidates: Any, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"candidates": candidates}))
    with pytest.raises(refocus.InputError, match=r"results\.json"):
        results_of(tmp_path)
