"""The audit: its page, its verdict, its worst images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refocus.reports.audit import verdict, worst_images
from tests.makers import answer, run, self_contained


def test_audit_writes_its_page_and_goes_on_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    out = tmp_path / "audit"
    arguments = [
        "audit",
        "--model",
        model_folder,
        "--images",
        images,
        "--masks",
        masks,
        "--most",
        12,
        "--out",
        out,
    ]
    assert run(monkeypatch, *arguments) == 0
    assert "BG-gap" in capsys.readouterr().out
    content = json.loads((out / "audit.json").read_text())
    assert content["entry"]["masked"] == 12
    assert sum(row["n"] for row in content["classes"]) == 12
    text = self_contained(out / "audit.html")
    assert content["verdict"].split(":")[0] in text
    assert all(row["image"] in text for row in content["worst_images"])
    assert run(monkeypatch, *arguments) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--resume") == 2
    assert "nothing to resume" in capsys.readouterr().err
    (out / "manifest.json").unlink()
    assert run(monkeypatch, *arguments, "--resume") == 0
    assert json.loads((out / "audit.json").read_text()) == content


def gap(
    value: float, low: float, high: float, chance: float = 0.01, *, falls: bool = False
) -> dict[str, Any]:
    sides = {"mixed_same": {"top1": 80.0}, "mixed_rand": {"top1": 80.0 - value}}
    change = {"value": -0.06, "interval": [-0.09, -0.03 if falls else 0.01]}
    found = {
        "bg_gap": {"value": value, "interval": [low, high], "mcnemar": chance},
        "confidence_change": change,
        **sides,
    }
    return {"background": {"model": found}}


def test_the_verdict_follows_the_interval() -> None:
    assert verdict(gap(20, 10, 30)).startswith("This model uses the background: top-1 is 80.0 %")
    assert verdict(gap(5, -3, 13)).startswith("No use of the background can be shown")
    assert verdict(gap(5, 1, 9, chance=0.125)).startswith("No use of the background can be shown")
    assert "confidence in the true class falls by 0.06 (95 %: 0.03 to 0.09)" in verdict(
        gap(5, -3, 13, falls=True)
    )
    assert "should not be" in verdict(gap(-9, -14, -4))
    assert "Too few" in verdict(
        {"background": {"model": {"bg_gap": {"value": None, "interval": None, "mcnemar": 1.0}}}}
    )


def test_worst_images_were_right_and_fell_most() -> None:
    same = [
        answer("a", 0, 0, 0.9),
        answer("b", 0, 0, 0.8),
        answer("c", 0, 1, 0.9),
        answer("d", 0, 0, 0.9),
    ]
    rand = [answer("a", 0, 1, 0.2), answer("b", 0, 0, 0.7), answer("c", 0, 1, 0.0)]
    assert [row["image"] for row in worst_images(same, rand, 5)] == [
        "a",
        "b",
    ]  # c was wrong, d has no swap


def test_audit_finds_its_own_masks_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, _ = image_folders
    out = tmp_path / "audit"
    arguments = [
        "audit",
        "--model",
        model_folder,
        "--images",
        images,
        "--backbone",
        model_folder,
        "--mask-score",
        0,
    ]
    assert run(monkeypatch, *arguments, "--out", images / "audit") == 2
    assert "lies inside --images" in capsys.readouterr().err
    assert not (images / "audit").exists()
    assert run(monkeypatch, *arguments, "--out", out) == 0
    assert len(list((out / "masks").glob("*/*.png"))) == 24
    assert "found without annotation" in self_contained(out / "audit.html")
    assert "found automatically" in (out / "audit.html").read_text()
