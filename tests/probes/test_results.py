"""Means, paired differences and headlines of probes."""

from __future__ import annotations

import pytest

from refocus.probes import results


def test_results_are_means_with_paired_differences_and_gaps_left_out() -> None:
    ours = [
        {"image": f"{i}", "values": {"a": [1.0, float(i % 2), None if i == 0 else 1.0]}}
        for i in range(4)
    ]
    theirs = [
        {"image": f"{i}", "values": {"a": [1.0, 0.0, 0.0]}} for i in (3, 2, 1, 0, 9)
    ]  # another order, one more
    levels = {"model": [0, 1, 2], "against": [0, 1, 2]}
    found = results.result({"model": ours, "against": theirs}, levels, scale=100, first=1)
    cells = found["curves"]["model"]["a"]
    assert [c["value"] for c in cells] == [100, 50, 100]
    assert [c["n"] for c in cells] == [4, 4, 3]
    assert found["differences"]["a"][1]["difference"] == 50
    assert found["differences"]["a"][2]["difference"] == 100
    assert found["headline"]["model"]["value"] == pytest.approx((0 + 100 + 50 + 100) / 4)
    assert found["headline"]["difference"] == pytest.approx((0 + 100 + 50 + 100) / 4)
    low, high = found["headline"]["difference_interval"]
    assert low < found["headline"]["difference"] < high


def test_models_of_other_depth_have_curves_of_their_own() -> None:
    ours = [{"image": f"{i}", "values": {"a": [1.0, 0.0]}} for i in range(3)]
    theirs = [{"image": f"{i}", "values": {"a": [1.0, 1.0, 0.0]}} for i in range(3)]
    levels = {"model": ["1", "2"], "against": ["1", "2", "3"]}
    found = results.result({"model": ours, "against": theirs}, levels, scale=100, first=0)
    assert "differences" not in found
    assert found["headline"]["difference"] == pytest.approx(50 - 200 / 3)


def test_a_loss_that_never_differs_has_no_interval() -> None:
    rows = [{"image": f"{i}", "values": {"loss": [0.5, float(i)]}} for i in range(5)]
    found = results.result(
        {"model": rows, "against": rows}, {"model": [0, 1], "against": [0, 1]}, scale=1, first=1
    )
    assert found["headline"]["difference"] == 0
    assert found["headline"]["difference_interval"] is None
    assert found["curves"]["model"]["loss"][0]["interval"] is None
    low, high = found["curves"]["model"]["loss"][1]["interval"]
    assert 0 < low < 2 < high < 4


def test_a_headline_may_count_one_series_alone() -> None:
    rows = [{"image": f"{i}", "values": {"a": [1.0], "b": [0.0]}} for i in range(3)]
    found = results.result({"model": rows}, {"model": ["x"]}, scale=100, first=0, headline=("a",))
    assert found["headline"]["model"]["value"] == 100
