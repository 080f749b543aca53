"""The whole way in one call: what it finds, that it goes on, what it refuses, what it plans."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import refocus
from refocus import RunSettings, locks
from refocus.flow import pace, page, results, run
from refocus.flow import settings as flow_settings
from refocus.records import to_json
from refocus.reports.card import write_card
from refocus.reports.settings import ReportSettings
from refocus.vit import precision
from refocus.vit.precision import in_bfloat16
from tests.makers import invoke, make_images, matlab_file

QUICK = RunSettings(shots=1, epochs=1, most=8, device="cpu")
NAMES = ["index.html", "run.json", "settings.json", "audit", "tune"]


class _Hrefs(HTMLParser):
    """Where a page's links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for key, value in attrs if key == "href"]


@pytest.mark.slow
def test_from_a_checkpoint_and_a_folder_to_a_decision(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    out = tmp_path / "run"
    street, _ = make_images(tmp_path / "street", count=2, seed=1)
    settings = replace(QUICK, tests={"again": street})
    found = refocus.run(model_folder, images, out, masks=masks, settings=settings)
    assert all((out / name).exists() for name in NAMES)
    questions = [answer.question for answer in found.answers]
    assert questions[0].startswith("Does it rely")
    assert found.answers[0].why == found.audit.verdict
    assert found.answers[2].why == found.tuning.verdict.sentence
    assert not found.ship  # 24 random images promise nothing
    assert found.model == str(model_folder)
    assert set(found.report.suites) == {"held-out", "again"}
    assert found.report.suites["held-out"].n == 24 - 2  # without those trained on
    assert found.masks is None
    assert json.loads((out / "run.json").read_text()) == to_json(found)
    text = (out / "index.html").read_text()
    for answer in found.answers:
        assert answer.answer in text
    links = _Hrefs(text).found
    assert links
    anchors = set(re.findall(r'id="([^"]+)"', text))
    for link in links:
        assert link[1:] in anchors if link.startswith("#") else (out / link).is_file(), link
    assert 'src="http' not in text
    assert "bfloat16" not in text
    assert f"as it was given, on {QUICK.most} images with a mask." in text  # of 24
    measured = ReportSettings(
        suites={"held-out": images, "again": street},
        masks={"held-out": masks},
        most=QUICK.most,
        device="cpu",
    )
    assert refocus.report(out, measured).page == out / "tune" / "report.html"
    assert not (out / "tune" / "proof-2").exists()  # it is the run's own evaluation
    assert write_card(out) == out / "tune" / "README.md"
    assert refocus.load(out).num_classes == 4


@pytest.mark.parametrize("complete", [False, True])
def test_a_model_of_a_hub_that_changed_meanwhile_is_refused(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    complete: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, masks = image_folders
    network = refocus.load(model_folder)
    monkeypatch.setattr(run, "load_models", lambda *_: {"model": network})
    monkeypatch.setattr(run, "_concluded", lambda *_: None)
    monkeypatch.setattr(results, "read", lambda _: None)
    for _ in range(2):  # as it was: goes on, or is read
        refocus.run("hf:a/b", images, tmp_path / "run", masks=masks, settings=QUICK)
        if complete:
            (tmp_path / "run" / "manifest.json").write_text("{}")
    torch.nn.init.constant_(network.get_parameter("head.bias"), 7)
    with pytest.raises(refocus.InputError, match=r"started with other models.* \(model: "):
        refocus.run("hf:a/b", images, tmp_path / "run", masks=masks, settings=QUICK)


@pytest.mark.slow
def test_the_same_arguments_go_on_and_others_are_refused_and_named(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, masks = image_folders
    out = tmp_path / "run"

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "tune", stopped)
    with pytest.raises(KeyboardInterrupt):
        refocus.run(model_folder, images, out, masks=masks, settings=QUICK)
    monkeypatch.undo()
    audited = (out / "audit" / "audit.json").stat().st_mtime_ns
    with pytest.raises(refocus.InputError, match=r"\(epochs: 1 then, 2 now; see"):
        refocus.run(model_folder, images, out, masks=masks, settings=replace(QUICK, epochs=2))
    with pytest.raises(refocus.InputError, match=r"\(masks: .* then, null now; see"):
        refocus.run(model_folder, images, out, settings=QUICK)
    monkeypatch.setattr(run.page, "html", stopped)
    with pytest.raises(KeyboardInterrupt):
        refocus.run(model_folder, images, out, masks=masks, settings=QUICK)
    monkeypatch.undo()
    for folder in (out, out / "audit"):  # as a process leaves it that is killed at its very end
        (folder / locks.LOCK).write_text("{}")
    found = refocus.run(model_folder, images, out, masks=masks, settings=QUICK)
    assert (out / "audit" / "audit.json").stat().st_mtime_ns == audited  # not done again
    assert list(out.rglob(locks.LOCK)) == []
    for gone in ("index.html", "audit", "tune/model"):
        shutil.rmtree(out / gone) if (out / gone).is_dir() else (out / gone).unlink()
    assert refocus.run(model_folder, images, out, masks=masks, settings=QUICK) == found
    assert all((out / name).exists() for name in (*NAMES, "audit/audit.html", "tune/model"))
    monkeypatch.setattr(run.plan, "made", stopped)
    (out / locks.LOCK).write_text("{}")
    again = refocus.run(model_folder, images, out, masks=masks, settings=replace(QUICK, workers=1))
    assert again == found  # read, and how fast it goes decides nothing
    assert not (out / locks.LOCK).exists()
    with pytest.raises(refocus.InputError, match=r"\(tolerance: 1.0 then, 2.0 now; see"):
        refocus.run(model_folder, images, out, masks=masks, settings=replace(QUICK, tolerance=2))
    moved = out.rename(tmp_path / "moved")
    assert results.read(moved).page == moved / "index.html"


@pytest.mark.slow
def test_masks_are_found_where_none_are_given_and_shown(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, masks = image_folders

    def taken_over(given: Path, out: Path, settings: refocus.MaskSettings) -> object:
        assert settings.backbone == str(model_folder)
        return refocus.find_masks(given, out, refocus.MaskSettings(source=("png", masks)))

    monkeypatch.setattr(run, "find_masks", taken_over)
    settings = replace(QUICK, backbone=str(model_folder))
    found = refocus.run(model_folder, images, tmp_path / "run", settings=settings)
    assert found.masks == results.MasksFound(24, 0, 0)
    text = (tmp_path / "run" / "index.html").read_text()
    assert "Masks that were found" in text
    assert "masks/contact_sheet.html" in _Hrefs(text).found
    assert text.count('alt="Image and mask, score') == 8


def test_a_tracker_is_handed_to_the_tuning_and_another_is_refused_first(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, masks = image_folders
    asked: list[object] = []

    def stopped(*_: object, track: str | None, **__: object) -> None:
        asked.append(track)
        raise KeyboardInterrupt

    given = ("--model", model_folder, "--images", images, "--out", tmp_path / "run")
    with pytest.raises(refocus.InputError, match="track abacus: "):
        invoke("run", *given, "--track", "abacus")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(run, "check_tracker", lambda name: None)  # whether it is installed
    monkeypatch.setattr(run, "audit", lambda *_, **__: None)
    monkeypatch.setattr(run, "tune", stopped)
    with pytest.raises(KeyboardInterrupt):
        refocus.run(model_folder, images, tmp_path / "run", masks=masks, settings=QUICK, track="x")
    monkeypatch.setattr(run, "run", stopped)
    with pytest.raises(AssertionError):  # Ctrl-C
        invoke("run", *given, "--track", "tensorboard")
    assert asked == ["x", "tensorboard"]


def test_what_cannot_be_used_leaves_nothing(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    out = tmp_path / "run"
    for wrong, said in (
        ({"objective": "frobnicate"}, "objective frobnicate: unknown"),
        ({"tests": {"a": tmp_path / "absent"}}, "tests .*absent: no such folder"),
        ({"tests": {"a": images}}, "tests a=.*: all of its images are among images"),
        ({"device": "cuda"}, "device cuda"),
    ):
        with pytest.raises(refocus.InputError, match=said):
            refocus.run(model_folder, images, out, masks=masks, settings=replace(QUICK, **wrong))
    (tmp_path / "empty").mkdir()
    with pytest.raises(refocus.InputError, match="holds no mask"):
        refocus.run(model_folder, images, out, masks=tmp_path / "empty", settings=QUICK)
    with pytest.raises(refocus.InputError, match="lies inside images"):
        refocus.run(model_folder, images, images / "run", masks=masks, settings=QUICK)
    for name, why in {
        "imagenet": r"^tests imagenet=.*needs ImageNet's 1000",
        "cue-conflict": r"^tests cue-conflict=.*ImageNet's 1000 classes; .*evaluate --mapping`$",
        "imagenet_a": r"^tests imagenet_a=.*spelled imagenet-a",
    }.items():
        known = replace(QUICK, tests={name: images})
        with pytest.raises(refocus.InputError, match=why):
            refocus.run(model_folder, images, out, masks=masks, settings=known)
    with pytest.raises(refocus.InputError, match="give the set another name"):
        RunSettings(tests={"held-out": images})
    assert not out.exists()


def test_a_plan_says_what_would_be_done_and_for_how_long(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    street, _ = make_images(tmp_path / "street", count=2, seed=1)
    settings = replace(QUICK, tests={"again": street})
    few = refocus.plan_run(model_folder, images, masks=masks, settings=settings)
    # a known set is read in its own layout, as `report` does
    known = {"again": street, "imagenet-segmentation": matlab_file(tmp_path / "gtsegs.mat")}
    more = refocus.plan_run(model_folder, images, masks=masks, settings=replace(QUICK, tests=known))
    assert more.tests == few.tests
    assert (few.count, few.classes, few.tests) == (24, 4, {"again": 8})
    assert [stage.name for stage in few.stages] == ["audit", "tune", "report"]
    assert all(stage.seconds > 0 for stage in few.stages)
    min(images.rglob("*.png")).write_bytes(b"broken")  # which is passed over
    found = refocus.plan_run(
        model_folder, images, settings=replace(QUICK, backbone=str(model_folder))
    )
    assert found.masks is None
    assert found.stages[0].name == "masks"
    assert found.stages[0].images == 24
    assert sorted(tmp_path.iterdir()) == sorted(
        [model_folder, images.parent, street.parent, tmp_path / "gtsegs.mat"]
    )


def test_the_precision_of_a_run_is_that_of_every_stage(
    model_folder: Path, image_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = image_folders
    settings = replace(QUICK, precision="bf16")
    assert flow_settings.audit_settings(settings).precision == "bf16"
    assert flow_settings.tuning_recipe(settings, "m", images, masks).precision == "bf16"
    timed: list[bool] = []
    genuine = pace.explain
    monkeypatch.setattr(pace, "explain", lambda *a: timed.append(in_bfloat16()) or genuine(*a))
    refocus.plan_run(model_folder, images, masks=masks, settings=settings)
    assert timed == [True, False]  # of the stages, and of the check for harm
    timed.clear()
    refocus.plan_run(model_folder, images, masks=masks, settings=QUICK)
    assert timed == [False]


@pytest.mark.slow
def test_every_page_of_a_run_is_in_its_precision_and_no_other_goes_on_with_it(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, masks = image_folders
    settings = replace(QUICK, precision="bf16")
    drawn: list[bool] = []
    genuine = page.html
    monkeypatch.setattr(page, "html", lambda *a: drawn.append(in_bfloat16()) or genuine(*a))
    found = refocus.run(model_folder, images, tmp_path / "run", masks=masks, settings=settings)
    assert found.audit.precision == "bf16"
    assert found.report.precision == "bf16"
    assert drawn == [True]
    assert "computed in bfloat16, the check for harm in float32" in found.page.read_text()
    again = refocus.run(model_folder, images, tmp_path / "run", masks=masks, settings=settings)
    assert to_json(again) == to_json(found)
    with pytest.raises(refocus.InputError, match="precision"):
        refocus.run(model_folder, images, tmp_path / "run", masks=masks, settings=QUICK)


def test_a_precision_that_the_machine_has_not_is_refused_before_the_model_is_read(
    image_folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_has_bfloat16", lambda _: False)
    settings = replace(QUICK, precision="bf16")
    with pytest.raises(refocus.InputError, match="precision bf16: this machine's cpu has none"):
        refocus.run("no/model", image_folders[0], tmp_path / "run", settings=settings)
    assert not (tmp_path / "run").exists()


def test_more_images_and_epochs_are_expected_to_take_longer(
    model_folder: Path, image_folders: tuple[Path, Path]
) -> None:
    from refocus.flow import plan
    from refocus.flow.pace import Pace

    speed = Pace(read=0.01, forward=0.02, explained=0.1, step=0.3, forward_of_step=0.1)
    exact = replace(speed, forward=0.04, explained=0.2)
    data = plan.look(refocus.load(model_folder), image_folders[0], None, QUICK)

    def seconds(**changes: int) -> dict[str, float]:
        listed = plan.stages(data, replace(QUICK, **changes), speed, exact, finding=False)
        return {stage.name: stage.seconds for stage in listed}

    usual, long, wide = seconds(), seconds(epochs=2), seconds(most=16)
    # one more epoch: 2 images trained on, 5 that choose it
    assert long["tune"] - usual["tune"] == pytest.approx(2 * 0.31 + 5 * 0.11)
    # 8 more images: each and two that lend a background are read once; for each of 5 shifts a
    # picture and a pass; one map
    assert wide["audit"] - usual["audit"] == pytest.approx(8 * (3 * 0.01 + 5 * 0.03 + 0.11))
    # the pictures of 47 shifts are made once for both models
    expected = 8 * (3 * 0.01 + 47 * 0.01 + 2 * (47 * 0.02 + 0.11))
    assert wide["report"] - usual["report"] == pytest.approx(expected)
    assert long["audit"] == usual["audit"]
    slow = plan.stages(data, QUICK, exact, exact, finding=False)
    spent = dict(zip(usual, (stage.seconds for stage in slow), strict=True))
    assert spent["tune"] == usual["tune"]  # the check for harm answers in float32, whatever trains
    assert spent["audit"] > usual["audit"]


@pytest.mark.slow
def test_the_command_plans_runs_and_prints_json(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    given = ("run", "--model", model_folder, "--images", images, "--masks", masks)
    street, _ = make_images(tmp_path / "street", count=2, seed=1)
    options = (*given, "--shots", 1, "--epochs", 1, "--most", 8, "--test", f"again={street}")
    planned = invoke(*options, "--dry-run")
    assert "24 images of 4 classes" in planned
    assert "test set again: 8 images" in planned
    assert "in total on this machine" in planned
    said = invoke(*options, "--out", tmp_path / "run")
    assert "Ship the tuned model? No, keep the original." in said
    content = json.loads(invoke(*options, "--out", tmp_path / "run", "--json"))
    assert content == json.loads((tmp_path / "run" / "run.json").read_text())
