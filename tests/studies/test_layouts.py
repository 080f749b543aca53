"""The tables' arithmetic, and the sheet of claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from refocus.records import MapRecord, Prediction
from refocus.results import Estimate
from refocus.studies import claims, datasets, layouts, paper, registry, writing
from refocus.studies.order import Order
from refocus.studies.results import AVERAGE, Line


def prediction(image: str, label: int, guess: int) -> Prediction:
    return Prediction(image, label, (guess, 9), 0.9, 0.1)


def test_a_curve_counts_an_image_once() -> None:
    levels = {
        "a": [prediction("x", 0, 0), prediction("y", 1, 0)],
        "b": [prediction("x", 0, 1), prediction("y", 1, 0)],
    }
    assert layouts.by_image(levels, "top1") == {"x": 50.0, "y": 0.0}
    assert layouts.by_image(levels, "top1", frozenset({1})) == {"y": 0.0}
    found = layouts.compare([{"x": 50.0, "y": 100.0}], {"x": 100.0, "y": 0.0})
    assert (found.number.n, found.number.value) == (2, 75.0)
    assert found.change is not None
    assert found.change.difference == 25.0


def test_columns_of_few_images_are_marked() -> None:
    lines = [
        Line("m", "original", "location", "top1", Estimate(44.2, None, 16)),
        Line("m", "original", "natural", "top1", Estimate(92.0, None, 1000)),
    ]
    head = writing.markdown(lines).splitlines()[0]
    assert head == "| model | method | location top-1 (n = 16, few) | natural top-1 |"


def test_a_group_without_images_does_not_mark_its_column() -> None:
    lines = [
        Line("m", "original", "natural", "top1", Estimate(92.0, None, n), classes=which)
        for n, which in ((1000, "trained"), (0, "untrained"))
    ]
    assert writing.markdown(lines).splitlines()[0] == "| model | method | natural top-1 |"


@pytest.mark.parametrize("draws", [1, 2])
def test_maps_of_which_none_counts_are_an_empty_cell(draws: int) -> None:
    """No image shows its object, say, so that no map can be compared."""
    records = [MapRecord("a", None, None, None)]
    for before in (None, records):
        found = layouts.fits([records] * draws, before, "miou")
        nothing = layouts.Numbers(Estimate(None, None, 0), None, None, draws)
        assert found == nothing


def test_an_average_over_no_shared_image_is_an_empty_cell(tmp_path: Path) -> None:
    ground = datasets.Ground(
        dict.fromkeys(("a", "b"), "x"), tmp_path, {"annotated": tmp_path}, {}, own=True
    )
    order = Order("table1", registry.study("table1"), ground, tmp_path, {})
    draws = np.zeros((2, 1))
    moved = [layouts.Moved(["a"], draws), layouts.Moved(["b"], draws)]
    cell = layouts.Cell(AVERAGE, "natural", "top1")
    (line,) = layouts._averages(order, {cell: {registry.PUBLISHED.name: moved}})
    assert (line.number.value, line.change, line.spread) == (None, None, None)


def test_the_sheet_names_every_claim_and_judges_those_that_were_run() -> None:
    line = Line(
        "ViT-B", "published objective", "objectnet", "top1", Estimate(41.9, (41.2, 42.6), 18574)
    )
    other = Line("ViT-B", "original", "objectnet", "top1", Estimate(38.0, (37.3, 38.7), 18574))
    titles = {"published objective": ("relevance", "annotated"), "original": ("original", "")}
    sheet = claims.claims([line, other], titles)
    found = {(r.dataset, r.model, r.metric): r for r in sheet}
    assert (
        len(sheet)
        == len(found)
        == sum(c.table <= 3 and c.model != "average" for c in paper.cells())
    )
    ours = found["ObjectNet", "ViT-B (Opt Relevance)", "Top-1 Accuracy"]
    assert (ours.claimed, ours.ours, ours.status) == (42.2, 41.9, "verified")
    assert found["ObjectNet", "ViT-B", "Top-1 Accuracy"].status == "not reproduced"  # 35.1 claimed
    assert (
        found["ObjectNet", "ViT-B (Opt Relevance, automatic masks)", "Top-1 Accuracy"].status
        == "not run"
    )
    assert claims.status(42.2, None) == "not run"
    assert (
        claims.sheet_text(sheet).splitlines()[0] == "Dataset\tModel\tMetric\tClaimed\tOurs\tStatus"
    )


@pytest.mark.parametrize(
    ("value", "half", "n", "status"),
    [
        (80.2, 0.3, 50_000, "verified"),
        (80.2, 3.0, 50_000, "not decided"),  # the claim lies in the interval, which says little
        (80.2, 0.3, 999, "not decided"),
        (80.9, 0.3, 50_000, "not decided"),  # near the margin
        (81.2, 0.3, 50_000, "not decided"),
        (81.4, 0.3, 50_000, "not reproduced"),
        (78.6, 0.3, 50_000, "not reproduced"),
        (70.0, 0.3, 500, "not decided"),
    ],
)
def test_a_claim_is_verified_by_equivalence(value: float, half: float, n: int, status: str) -> None:
    number = Estimate(value, (value - half, value + half), n)
    line = Line("ViT-B", "original", "imagenet", "top1", number)
    assert claims.status(80.0, line) == status


def test_equivalence_is_two_one_sided_tests() -> None:
    """At the margin itself a true difference passes in 5 % of the samples, and not more."""
    rng = np.random.default_rng(0)
    error = 0.3
    values = 81.0 + error * rng.standard_normal(4000)
    found = [
        claims.equivalence(
            80.0, Estimate(value, (value - 1.96 * error, value + 1.96 * error), 5000)
        )
        for value in values.tolist()
    ]
    share = float(np.mean([p is not None and p < 0.05 for p in found]))
    assert 0.04 < share < 0.06
