"""What a model was tuned on is measured by nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import refocus
from refocus import fingerprints
from refocus.data.trained import trained_images
from refocus.evaluation.plan import Plan
from refocus.evaluation.prove import evaluate_suites
from refocus.probes import material
from refocus.probes.registry import PROBES
from refocus.reports import audit
from refocus.vit import loading
from tests.makers import Build

TRAINED = ("ant/0.png", "ant/1.png", "bee/0.png")


def as_run(run: Path, images: Path, trained: tuple[str, ...], base: Path | str = "base") -> Path:
    """A folder as `refocus tune` leaves it, as far as it says what was trained on."""
    rows = [{"image": str(images / name), "label": 0, "mask": ""} for name in trained]
    (run / "selection.json").write_text(json.dumps({"train": rows}))
    (run / "recipe.json").write_text(json.dumps({"model": str(base)}))
    return run / "model"


@pytest.fixture
def tuned(tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path) -> Path:
    loading.save(tiny(), tmp_path / "run" / "model")
    return as_run(tmp_path / "run", image_folders[0], TRAINED)


def names(records: Path) -> set[str]:
    return {json.loads(line)["image"] for line in records.read_text().splitlines()}


@pytest.mark.parametrize("which", ["model", "against"])
def test_an_evaluation_measures_none_of_them(
    which: str,
    tuned: Path,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, against = (tuned, model_folder) if which == "model" else (model_folder, tuned)
    copy = Path(shutil.copytree(image_folders[0], tmp_path / "copy"))  # known by their content
    plan = Plan({"mine": copy}, quiet=True)
    found = evaluate_suites(model, plan, tmp_path / "out", against=against)
    left = names(tmp_path / "out" / "records" / "mine" / f"standard.{which}.jsonl")
    assert found.suites["mine"].n == 21
    assert not left & set(TRAINED)
    assert caplog.text.count("3 of 24 in mine") == 1
    as_run(tuned.parent, image_folders[0], TRAINED[:2])
    with pytest.raises(
        refocus.InputError, match="images that are left out, as they were trained on"
    ):
        evaluate_suites(model, plan, tmp_path / "out", against=against)


def test_images_that_were_moved_are_known_by_what_the_run_kept_of_them(
    tuned: Path, image_folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = image_folders[0]
    files = [images / name for name in TRAINED]
    kept = fingerprints.identity({}, files[:2])
    (tuned.parent / "inputs.json").write_text(json.dumps(kept))
    moved = images.rename(tmp_path / "moved")
    for file in moved.glob("*/*.png"):
        file.rename(file.with_name(f"photo-{file.name}"))
    found = evaluate_suites(tuned, Plan({"mine": moved}, quiet=True), tmp_path / "out")
    assert found.suites["mine"].n == 24 - 2
    assert "1 of the 3 images that the model was tuned on are no longer" in caplog.text


def test_a_test_set_without_them_has_the_settings_that_it_always_had(
    tuned: Path, image_folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = tmp_path / "gone"
    as_run(tuned.parent, gone, ("a.png",))
    evaluate_suites(tuned, Plan({"mine": image_folders[0]}, quiet=True), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["leave_out"] == []
    assert "not measured" not in caplog.text
    assert "1 of the 1 images that the model was tuned on are no longer" in caplog.text


def test_a_run_that_started_from_a_run(
    tuned: Path, tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    loading.save(tiny(), tmp_path / "next" / "model")
    later = as_run(tmp_path / "next", image_folders[0], ("dog/5.png",), tuned)
    expected = {(image_folders[0] / name).resolve() for name in (*TRAINED, "dog/5.png")}
    assert trained_images(str(later)) == expected
    as_run(tuned.parent, image_folders[0], TRAINED, later)  # in a circle, by hand
    assert trained_images(str(later), None, "vit_small_patch16_224") == expected


def test_python_functions_measure_none_of_them(
    tuned: Path, image_folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, masks = image_folders
    model = refocus.load(tuned)
    assert not {p.image for p in refocus.evaluate(model, images).predictions} & set(TRAINED)
    assert caplog.text.count("3 of 24") == 1
    assert refocus.audit(tuned, images, tmp_path / "audit", masks=masks).entry.n == 21
    kept = json.loads((tmp_path / "audit" / "settings.json").read_text())
    assert len(kept["leave_out"]) == 3


def test_an_audit_that_finds_its_masks_measures_none_of_them(
    tuned: Path, image_folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = image_folders
    monkeypatch.setattr(audit, "load_backbone", lambda _: None)
    monkeypatch.setattr(audit, "find_masks", lambda _, out, __: shutil.copytree(masks, out))
    assert refocus.audit(tuned, images, tmp_path / "audit").entry.n == 21


def test_a_probe_measures_none_of_them(
    tuned: Path, image_folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    images, masks = image_folders
    settings = refocus.ProbeSettings(masks=str(masks))
    models = {"model": refocus.load(tuned)}
    asked = material.Material(images, settings, {"model": str(tuned)})
    for name in ("cutout", "shapes"):  # without and with masks
        (part,) = asked.parts(PROBES[name], models["model"])
        left = {s.image.relative_to(images).as_posix() for s in part.samples}
        assert len(left) == 21
        assert not left & set(TRAINED)
    assert caplog.text.count("3 of 24") == 1
    assert len(asked.decisive(PROBES["cutout"], models)["leave_out"]) == 3
    unknown = material.Material(images, settings, {"model": "vit_small_patch16_224"})
    assert len(unknown.samples(PROBES["cutout"], models["model"])) == 24


def test_nothing_left_to_measure_is_an_error(
    tuned: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images = image_folders[0]
    every = tuple(file.relative_to(images).as_posix() for file in images.rglob("*.png"))
    as_run(tuned.parent, images, every)
    with pytest.raises(refocus.InputError, match=r"mine=.*tuning used all of its 24 images"):
        evaluate_suites(tuned, Plan({"mine": images}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
