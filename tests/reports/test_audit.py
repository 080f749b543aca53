"""The audit: its page, its verdict, its worst images."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from refocus.data.shifts import KINDS
from refocus.evaluation.stored import read_audit
from refocus.records import to_json
from refocus.reports.audit import SHIFTS, verdict, worst_images
from refocus.reports.audit_page import key_numbers, notes
from refocus.results import (
    Accuracy,
    Background,
    Classification,
    Compared,
    Estimate,
    Reliance,
    ShiftEntry,
    SuiteEntry,
)
from tests.makers import answer, answers_first, run, self_contained, words


def test_audit_writes_its_page_and_goes_on_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    out = tmp_path / "audit"
    given = words(model=model_folder, images=images, masks=masks, most=12, out=out)
    arguments = ["audit", *given]
    assert run(monkeypatch, *arguments) == 0
    assert "BG-gap" in capsys.readouterr().out
    found = read_audit(out / "audit.json")
    assert json.loads((out / "audit.json").read_text()) == to_json(found)  # nothing unread
    assert found.entry.masked == 12
    assert sum(row.n for row in found.classes) == 12
    text = self_contained(out / "audit.html")
    assert found.verdict.split(":")[0] in text
    assert all(row.image in text for row in found.worst_images)
    screen = answers_first(out / "audit.html")
    assert screen.tags.count("div.strip") == 1 + len(SHIFTS)
    for kind in SHIFTS:
        assert KINDS[kind].title in unescape(text)
        assert KINDS[kind].about[1:] in unescape(text)
    assert run(monkeypatch, *arguments[:-3], 8, "--out", out) == 2
    assert "(most: 12 then, 8 now; see" in capsys.readouterr().err
    assert run(monkeypatch, *arguments) == 0
    assert read_audit(out / "audit.json") == found
    (out / "manifest.json").unlink()
    assert run(monkeypatch, *arguments, "--resume") == 0
    assert read_audit(out / "audit.json") == found


def test_an_audit_puts_objects_on_backgrounds_of_the_users(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    out, scenes = tmp_path / "audit", tmp_path / "scenes"
    scenes.mkdir()
    given = words(model=model_folder, images=images, masks=masks, most=4, out=out)
    assert run(monkeypatch, "audit", *given, "--backgrounds", scenes) == 2
    assert "--backgrounds" in capsys.readouterr().err
    assert not out.exists()
    for number in range(2):
        Image.new("RGB", (50, 40), (0, 90, 90 * number)).save(scenes / f"{number}.png")
    assert run(monkeypatch, "audit", *given, "--backgrounds", scenes) == 0
    assert list(read_audit(out / "audit.json").entry.shifts) == [*SHIFTS, "real"]
    assert KINDS["real"].title in unescape((out / "audit.html").read_text(encoding="utf-8"))
    assert run(monkeypatch, "audit", *given) == 2  # without them it is another audit
    assert "was started with other" in capsys.readouterr().err


def gap(
    value: float, low: float, high: float, p: float = 0.01, *, falls: bool = False
) -> SuiteEntry:
    found = Reliance(
        bg_gap=Estimate(value, (low, high), 50),
        bg_gap_p=p,
        confidence_change=Estimate(-0.06, (-0.09, -0.03 if falls else 0.01), 50),
        plain=Estimate(85.0, None, 50),
        mixed_same=Estimate(80.0, None, 50),
        mixed_rand=Estimate(80.0 - value, None, 50),
    )
    return SuiteEntry("classification", 50, background=Background(found))


def test_the_verdict_follows_the_interval() -> None:
    assert verdict(gap(20, 10, 30)).startswith(
        "This model relies on the background: its accuracy falls from 80.0 %"
    )
    assert verdict(gap(5, -3, 13)).startswith("These images do not show that this model")
    assert verdict(gap(5, 1, 9, p=0.125)).startswith("These images do not show that this model")
    assert "confidence in the true class falls by 0.06 (95 %: 0.03 to 0.09)" in verdict(
        gap(5, -3, 13, falls=True)
    )
    assert "unexpected" in verdict(gap(-9, -14, -4))
    nothing = Estimate(None, None, 0)
    few = Background(Reliance(nothing, 1.0, nothing, nothing, nothing, nothing))
    assert "Too few" in verdict(SuiteEntry("classification", 0, background=few))


def test_a_gap_below_0_reads_without_a_double_negative() -> None:
    alone = Estimate(20.0, (10.0, 30.0), 50)
    accuracy = Accuracy(alone, alone, alone, {})
    shift = ShiftEntry("", 5.0, Classification(accuracy))
    shares = {"background_share": Compared(Estimate(0.31, (0.2, 0.4), 50))}
    background = gap(-1.7, -8, 5, p=0.7).background
    entry = SuiteEntry(
        "classification", 50, shifts={"only-bg": shift}, background=background, maps=shares
    )
    first, second, third = key_numbers(entry, 100)
    assert first.value == "-1.7 points"
    assert "(80.0 % minus 81.7 %)" in first.name
    assert "lost" not in first.name
    assert "100 classes: 1.0 %" in second.detail  # of the model's classes, not of the folders
    assert third.value == "0.31"
    assert any("below 0" in note and "shuffled" in note for note in notes(entry))
    assert notes(gap(20, 10, 30)) == []


def test_only_classes_whose_interval_lies_above_0_are_listed(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    images, masks = image_folders
    out = tmp_path / "audit"
    given = ("--model", model_folder, "--images", images, "--masks", masks, "--most", 8)
    assert run(monkeypatch, "audit", *given, "--out", out) == 0
    found = read_audit(out / "audit.json")
    assert all(row.bg_gap.interval[0] <= 0 for row in found.classes if row.bg_gap.interval)
    text = (out / "audit.html").read_text()
    assert "No single class can be said to rely on the background" in text
    assert "no interval lies above 0" in text  # one may lie below it
    assert "Images that rely on the background most" not in text  # nor does the model
    assert "Images with the largest fall in confidence" in text


def test_worst_images_were_right_and_fell_most() -> None:
    same = [
        answer("a", 0, 0, 0.9),
        answer("b", 0, 0, 0.8),
        answer("c", 0, 1, 0.9),
        answer("d", 0, 0, 0.9),
        answer("e", 0, 0, 0.4),
    ]
    rand = [
        answer("a", 0, 1, 0.2),
        answer("b", 0, 0, 0.7),
        answer("c", 0, 1, 0.0),
        answer("e", 0, 0, 0.6),
    ]
    assert [row.image for row in worst_images(same, rand, 5)] == [
        "a",
        "b",
    ]  # c was wrong, d has no swap, e rose


@pytest.mark.slow
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
        *words(model=model_folder, images=images, backbone=model_folder),
        "--mask-score",
        0,
    ]
    assert run(monkeypatch, *arguments, "--out", images / "audit") == 2
    assert "lies inside --images" in capsys.readouterr().err
    assert not (images / "audit").exists()
    for command in (arguments, ["run", *arguments[1:5]]):
        assert run(monkeypatch, *command, "--out", out, "--mask-polarity", "invert") == 2
        said = "--mask-polarity invert: only with --masks, or images that carry any"
        assert said in capsys.readouterr().err
    assert not out.exists()
    assert run(monkeypatch, *arguments, "--out", out) == 0
    assert len(list((out / "masks").glob("*/*.png"))) == 24
    assert "found without annotation" in self_contained(out / "audit.html")
    assert "found automatically" in (out / "audit.html").read_text()
