"""The tables' arithmetic, and the sheet of claims."""

from __future__ import annotations

from refocus.records import Prediction
from refocus.results import Estimate
from refocus.studies import claims, layouts, paper, writing
from refocus.studies.results import Line


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
    assert (
        claims.sheet_text(sheet).splitlines()[0] == "Dataset\tModel\tMetric\tClaimed\tOurs\tStatus"
    )
