"""The report of a run and of an evaluation."""

from __future__ import annotations

import csv
import json
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refocus import InputError, Recipe, ReportSettings, load, save
from refocus.data.shifts import KINDS
from refocus.evaluation import plan as plans
from refocus.evaluation.stored import read_evaluation
from refocus.records import to_json
from refocus.reports import before_after
from refocus.tuning import tune
from refocus.tuning.results import results_of
from refocus.tuning.selection import choose_samples
from tests.makers import NAMES, answers_first, invoke, make_images, run, self_contained, tuned


@pytest.mark.slow
def test_report_of_a_run_tells_what_was_done_and_what_changed(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tuned(monkeypatch, model_folder, image_folders, tmp_path / "run")
    assert run(monkeypatch, "report", folder, "--faithfulness", 3) == 0
    assert "report.html" in capsys.readouterr().out
    entry = read_evaluation(folder / "proof" / "results.json").suites["held-out"]
    assert entry.n == 24 - 4  # what was trained on is no part of it
    run_results = json.loads((folder / "results.json").read_text())
    assert run_results == to_json(results_of(folder))  # nothing that docs/schema.md does not name
    text = self_contained(folder / "report.html")
    for expected in (
        "Tuned with 4 images of 2 classes",
        "Corrected: ",
        "Spoiled: ",
        "never tuned on",
        "Object rotation",
        "do-no-harm",
    ):
        assert expected in text
    screen = answers_first(folder / "report.html")
    assert screen.tags.count("div.strip") == 1 + len(entry.shifts)
    assert all(KINDS[kind].title in unescape(text) for kind in entry.shifts)
    rows = list(csv.DictReader((folder / "report.csv").read_text().splitlines()))
    found = next(row for row in rows if row["suite"] == "held-out" and row["measure"] == "top-1")
    assert float(found["value"]) == pytest.approx(entry.first.top1.model.value)
    assert (
        float(found["difference_low"])
        <= float(found["difference"])
        <= float(found["difference_high"])
    )
    assert "| held-out: mixed-rand |" in (folder / "report.md").read_text()
    assert {
        row["measure"] for row in csv.DictReader((folder / "classes.csv").read_text().splitlines())
    } == set(NAMES)
    names = {row.name: row.change.top1.n for row in entry.first.trained_changes}
    assert names == {"tuned on": 8, "never tuned on": 12}
    before = (folder / "proof" / "results.json").stat().st_mtime_ns
    assert run(monkeypatch, "report", folder, "--faithfulness", 3) == 0  # measured once
    assert (folder / "proof" / "results.json").stat().st_mtime_ns == before
    mask = next((image_folders[1] / "dog").iterdir())
    Image.fromarray(np.asarray(Image.open(mask))[::-1]).save(
        mask
    )  # changed: what was measured with it no longer counts
    capsys.readouterr()
    assert "probes/probes.html" not in text
    (folder / "probes").mkdir()
    (folder / "probes" / "probes.html").write_text("")
    assert run(monkeypatch, "report", folder, "--faithfulness", 3, "--most", 4) == 0
    assert '<a href="probes/probes.html">' in (folder / "report.html").read_text()
    assert "report.html: rewritten" in capsys.readouterr().err
    assert (folder / "proof" / "results.json").stat().st_mtime_ns == before
    again = read_evaluation(folder / "proof-2" / "results.json").suites["held-out"]
    assert again.masked == 4
    with pytest.raises(InputError, match=r"^--on cue-conflict=cues: .*evaluate --mapping`"):
        invoke("report", folder, "--on", "cue-conflict=cues")
    assert not (folder / "proof-3").exists()


def test_what_a_run_has_seen_is_no_part_of_a_test_set_wherever_it_lies_today(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    recipe = Recipe(str(model_folder), str(images), str(masks), shots=2, check_images=6)
    model, folder = load(model_folder), tmp_path / "run"
    chosen = choose_samples(recipe, model)
    folder.mkdir()
    tune._begin(recipe, chosen, {}, folder)

    def counts(**suites: Path) -> list[int]:
        plan = before_after._plan(folder, ReportSettings(suites))
        kept = plans.decisive({}, {"model": model}, plan)
        for one in (plan, plans.plan_of(json.loads(json.dumps(kept)))):  # the pictures' as well
            found = [len(one.open(name, model).samples) for name in plan.suites]
        return found

    assert (len(chosen.train), len(chosen.select), len(chosen.check)) == (4, 5, 6)
    assert counts() == [24 - 4]
    assert counts(**{"held-out": images, "test": images}) == [24 - 4, 24 - 4 - 5 - 6]
    for file in images.parent.glob("*/*/*.png"):
        file.rename(file.with_name(f"photo-{file.name}"))
    assert counts() == [24 - 4]
    moved = images.rename(tmp_path / "moved")
    assert counts(**{"held-out": moved, "test": moved}) == [24 - 4, 24 - 4 - 5 - 6]
    seen = tmp_path / "seen"
    for sample in chosen.train:
        photo = moved / sample.image.parent.name / f"photo-{sample.image.name}"
        (seen / photo.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, seen / photo.parent.name)
    with pytest.raises(InputError, match=r"suites seen=.*tuning used all of its 4 images"):
        counts(seen=seen)
    (folder / "inputs.json").unlink()  # as in runs of earlier versions
    with pytest.raises(InputError, match=r"run .*png is gone, so copies of it"):
        counts(test=moved)


def test_only_the_runs_own_masks_are_read_as_it_read_them(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Masks of a test set may be drawn the other way round."""
    images, masks = image_folders
    recipe = Recipe(
        str(model_folder), str(images), str(masks), shots=2, check_images=6, mask_polarity="invert"
    )
    folder, (test, its) = tmp_path / "run", make_images(tmp_path / "test", count=2)
    folder.mkdir()
    tune._begin(recipe, choose_samples(recipe, load(model_folder)), {}, folder)

    def polarity(**given: Any) -> str:
        return before_after._plan(folder, ReportSettings(**given)).mask_polarity

    assert polarity() == "invert"
    assert polarity(suites={"a": images}, masks={"a": masks}) == "invert"
    assert polarity(suites={"a": images}, masks={"a": masks}, mask_polarity="keep") == "keep"
    assert polarity(suites={"a": test}, masks={"a": its}) == "ask"
    assert polarity(suites={"a": test}, masks={"a": its}, mask_polarity="keep") == "keep"


def test_report_of_an_evaluation_without_masks(
    monkeypatch: pytest.MonkeyPatch,
    two_model_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, _ = make_images(tmp_path / "x")
    out = tmp_path / "ev"
    on = ["--on", f"a={images}"]
    bare, names = load(two_model_folders[1]), tmp_path / "names.txt"
    bare.pretrained_cfg["label_names"] = None
    shutil.rmtree(two_model_folders[1])
    save(bare, two_model_folders[1])
    names.write_text("\n".join(NAMES[::-1]))  # of the one that carries none, in its own order
    assert (
        run(
            monkeypatch,
            "evaluate",
            "--model",
            two_model_folders[0],
            "--against",
            two_model_folders[1],
            "--names",
            names,
            *on,
            "--out",
            out,
        )
        == 0
    )
    assert run(monkeypatch, "report", out) == 0
    assert "Before and after" in self_contained(out / "report.html")
    assert run(monkeypatch, "report", out, *on) == 2
    assert (
        run(
            monkeypatch,
            "evaluate",
            "--model",
            two_model_folders[0],
            *on,
            "--out",
            tmp_path / "one",
        )
        == 0
    )
    assert run(monkeypatch, "report", tmp_path / "one") == 0
    assert (
        "tuned"
        not in self_contained(tmp_path / "one" / "report.html")
        .split("</style>")[1]
        .split("What was done")[0]
    )
    assert run(monkeypatch, "report", images) == 2
    assert "neither a folder of" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_kept_the_original_says_that_nothing_changed(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """24 images cannot promise that nothing is lost, so the rule keeps the original."""
    images, masks = image_folders
    folder = tmp_path / "run"
    given = ("--model", model_folder, "--images", images, "--masks", masks, "--epochs", 1)
    assert run(monkeypatch, "tune", *given, "--shots", 2, "--out", folder) == 0
    assert results_of(folder).kept_original
    capsys.readouterr()
    assert run(monkeypatch, "report", folder, "--most", 8) == 0
    assert "Nothing changed: tuning was tried" in capsys.readouterr().out
    records = {path.name for path in (folder / "proof" / "records" / "held-out").iterdir()}
    assert "standard.model.jsonl" in records
    assert not any(".against." in name for name in records)  # identical weights are not measured
    found = read_evaluation(folder / "proof" / "results.json")
    assert (found.model, found.against) == (str(model_folder), None)
    text = self_contained(folder / "report.html")
    assert "<title>Nothing changed: the original model was kept</title>" in text
    assert "Only the original was measured" in text
    assert "+0.0 (" not in text
    assert (folder / "report.md").read_text().startswith("# Nothing changed: the original")
