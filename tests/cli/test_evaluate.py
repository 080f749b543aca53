"""`refocus evaluate`: before and after, and resuming with the same settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import refocus
from refocus.cli.printing import print_table
from refocus.evaluation.plan import Plan
from refocus.evaluation.prove import evaluate_suites
from refocus.evaluation.stored import read_evaluation
from tests.makers import NAMES, run, words


@pytest.mark.slow
def test_tune_then_evaluate_before_and_after(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    weights = ("--weight", "background=1", "--weight", "foreground=0.5")
    options = (*words(epochs=2, objective="relevance", device="cpu"), *weights)
    given = words(model=model_folder, images=images, masks=masks, out=tmp_path / "run")
    assert run(monkeypatch, "tune", *given, *options) == 0
    assert "<- kept" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["weights"] == {
        "background": 1.0,
        "foreground": 0.5,
    }
    arguments = (
        "--model",
        tmp_path / "run" / "model",
        "--against",
        model_folder,
        "--on",
        f"a={images}",
        f"b={images}",
        "--out",
        tmp_path / "ev",
    )
    assert run(monkeypatch, "evaluate", *arguments) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    suites = read_evaluation(tmp_path / "ev" / "results.json").suites
    assert list(suites) == ["a", "b"]
    trained = len(json.loads((tmp_path / "run" / "selection.json").read_text())["train"])
    assert suites["a"].n == 24 - trained == 18
    answers = suites["a"].first
    assert answers.against is not None
    assert answers.change is not None
    assert set(answers.model.per_class) == set(answers.against.per_class) == set(NAMES)
    assert (
        len((tmp_path / "ev" / "records" / "a" / "standard.model.jsonl").read_text().splitlines())
        == 18
    )
    assert run(monkeypatch, "evaluate", *arguments) == 0  # the same again: from its records
    assert capsys.readouterr().out == shown


def test_evaluate_goes_on_with_the_same_settings_only(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, on = tmp_path / "ev", f"a={image_folders[0]}"
    assert run(monkeypatch, "evaluate", "--model", model_folder, "--on", on, "--out", out) == 0
    whole = json.loads((out / "results.json").read_text())
    (out / "manifest.json").unlink()
    lines = (out / "records" / "a" / "standard.model.jsonl").read_text().splitlines(keepends=True)
    (out / "records" / "a" / "standard.model.jsonl").write_text("".join(lines[:7]))
    other = words(model=model_folder, on=f"b={image_folders[0]}", out=out)
    assert run(monkeypatch, "evaluate", *other) == 2
    said = capsys.readouterr().err
    assert "was started with other models, folders or options (suites" in said
    assert "run the same command to resume" in said
    again = ("evaluate", "--model", model_folder, "--on", on, "--out", out)
    assert run(monkeypatch, *again) == 0
    assert run(monkeypatch, *again, "--resume") == 0  # as earlier versions wanted it
    assert json.loads((out / "results.json").read_text()) == whole


@pytest.mark.slow
def test_backgrounds_of_ones_own(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    grounds = tmp_path / "grounds"
    grounds.mkdir()
    Image.new("RGB", (50, 40), (0, 0, 200)).save(grounds / "sky.png")
    shifts = (
        "shifts",
        images,
        "--masks",
        masks,
        "--out",
        tmp_path / "made",
        "--kind",
        "real,plain",
    )
    assert run(monkeypatch, *shifts) == 2
    assert "--backgrounds, a folder of images" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert run(monkeypatch, *shifts, "--backgrounds", grounds) == 0
    assert np.asarray(Image.open(tmp_path / "made" / "real" / "ant" / "0.png"))[0, 0, 2] == 200
    proof = ("evaluate", "--model", model_folder, "--on", f"a={images}", "--masks", f"a={masks}")
    options = ("--shift", "real", "--backgrounds", grounds, "--out", tmp_path / "ev")
    assert run(monkeypatch, *proof, *options) == 0
    found = json.loads((tmp_path / "ev" / "results.json").read_text())["suites"]["a"]["shifts"]
    assert list(found) == ["real"]
    records = tmp_path / "ev" / "records" / "a" / "real.model.jsonl"
    assert len(records.read_text().splitlines()) == 24
    recipe = ("tune", *words(model=model_folder, images=images, masks=masks, epochs=1))
    tuned = ("--device", "cpu", "--out", tmp_path / "run", "--backgrounds", grounds)
    assert run(monkeypatch, *recipe, *tuned) == 0
    said = capsys.readouterr()
    assert "Keep the original model" in said.out
    assert "images are left to check for harm" in said.err
    assert "real" in json.loads((tmp_path / "run" / "results.json").read_text())["unseen"]
    assert run(monkeypatch, *recipe, *tuned[:2], "--out", tmp_path / "no", *tuned[4:5], "none") == 2
    assert "none: no such folder" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_groups_are_in_the_table_and_in_the_report_the_worst_first(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (file := tmp_path / "groups.csv").write_text(
        "image,group\n"
        + "".join(f"{n}/{i}.png,{'even' if i % 2 else n}\n" for n in NAMES for i in range(6))
    )
    found = evaluate_suites(
        model_folder, Plan({"a": image_folders[0]}, groups={"a": file}), tmp_path / "ev"
    )
    groups = found.suites["a"].first.groups
    assert len(groups) == 5
    print_table(found.suites)
    shown = capsys.readouterr().out.partition("groups, the worst first")[2]
    rows = [line.split()[1:3] for line in shown.splitlines() if line.split()[:1] == ["a"]]
    assert rows == [[group.name, str(group.top1.n)] for group in groups]
    refocus.report(tmp_path / "ev")
    table = (tmp_path / "ev" / "report.md").read_text().partition("## Groups, the worst first")[2]
    lines = (tmp_path / "ev" / "report.csv").read_text().splitlines()
    for group in groups:
        assert f"| a | {group.name} |" in table
        assert any(line.startswith(f"a,top-1 of group {group.name},") for line in lines)
