"""The tables' arithmetic, and the sheet of claims."""

from __future__ import annotations

from refocus.records import Prediction
from refocus.studies import layouts, paper


def prediction(image: str, label: int, guess: int) -> Prediction:
    return Prediction(image, label, (guess, 9), 0.9, 0.1)


def test_a_curve_counts_an_image_once() -> None:
    levels = {
        "a": [prediction("x", 0, 0), prediction("y", 1, 0)],
        "b": [prediction("x", 0, 1), prediction("y", 1, 0)],
    }
    assert layouts.by_image(levels, "top1") == {"x": 50.0, "y": 0.0}
    assert layouts.by_image(levels, "top1", frozenset({1})) == {"y": 0.0}
    found = layouts.compare({"x": 50.0, "y": 100.0}, {"x": 100.0, "y": 0.0})
    assert (found["n"], found["value"], found["change"]) == (2, 75.0, 25.0)


def test_columns_of_few_images_are_marked() -> None:
    lines = [
        layouts.Line("m", "original", "location", "top1", 16, 44.2),
        layouts.Line("m", "original", "natural", "top1", 1000, 92.0),
    ]
    head = layouts.markdown(lines).splitlines()[0]
    assert head == "| model | method | location top-1 (n = 16, few) | natural top-1 |"


def test_the_sheet_names_every_claim_and_judges_those_that_were_run() -> None:
    line = layouts.Line(
        "ViT-B", "published objective", "objectnet", "top1", 18574, 41.9, 41.2, 42.6
    )
    other = layouts.Line("ViT-B", "original", "objectnet", "top1", 18574, 38.0, 37.3, 38.7)
    titles = {"published objective": ("relevance", "annotated"), "original": ("original", "")}
    sheet = layouts.claims([line, other], titles)
    found = {(r["Dataset"], r["Model"], r["Metric"]): r for r in sheet}
    assert (
        len(sheet)
        == len(found)
        == sum(c.table <= 3 and c.model != "average" for c in paper.cells())
    )
    ours = found["ObjectNet", "ViT-B (Opt Relevance)", "Top-1 Accuracy"]
    assert (ours["Claimed"], ours["Ours"], ours["Status"]) == (42.2, 41.9, "verified")
    assert (
        found["ObjectNet", "ViT-B", "Top-1 Accuracy"]["Status"] == "not reproduced"
    )  # 35.1 claimed
    assert (
        found["ObjectNet", "ViT-B (Opt Relevance, automatic masks)", "Top-1 Accuracy"]["Status"]
        == "not run"
    )
    assert (
        layouts.sheet_text(sheet).splitlines()[0] == "Dataset\tModel\tMetric\tClaimed\tOurs\tStatus"
    )
