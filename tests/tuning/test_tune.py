"""A whole run: what it lowers, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

import refocus
from refocus import Recipe
from refocus.files import write_json
from refocus.fingerprints import IDENTITY, refuse_changed
from refocus.records import to_json
from refocus.tuning import course, tune
from refocus.tuning.checkpoints import base_changed
from refocus.tuning.results import TuneResults, Verdict, results_of
from refocus.tuning.selection import Selection, choose_samples
from refocus.vit.teachers import Teacher
from tests.makers import Build
from tests.tuning.makers import quick_recipe, same, weights

KEEP = Verdict(False, 0.0, "Keep the original model.")
FOUND = TuneResults("m", "refocus", 1e-5, 0, 12, 1.0, (), 0.0, 0.0, KEEP, ("ant",))


def test_a_run_leaves_random_numbers_and_the_callers_accelerator_alone(
    recipe: Recipe, tmp_path: Path
) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    own = Accelerator(cpu=True, gradient_accumulation_steps=3)
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    expected = random.random(), np.random.rand(), float(torch.rand(1))
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    refocus.tune(replace(recipe, epochs=1, precision="bf16"), tmp_path / "run", progress=False)
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected
    assert own.gradient_accumulation_steps == 3
    assert own.mixed_precision == "no"
    Accelerator(cpu=True, mixed_precision="no")  # would refuse another precision than the state's


@pytest.mark.slow
def test_a_run_lowers_its_loss_and_leaves_a_model_that_timm_reads(
    recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    results = refocus.tune(
        replace(recipe, objective="finetune", lr=3e-3, epochs=10, do_no_harm=False),
        run,
        progress=False,
    )
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [h["epoch"] for h in history] == list(range(10))
    assert history[-1]["train"]["loss"] < 0.7 * history[0]["train"]["loss"]
    assert [h["lr"] for h in history[:5]] == pytest.approx(
        [3e-3, 3e-3, 3e-3 * 0.85, 3e-3 * 0.85, 3e-3 * 0.85**2]
    )
    validation = [h["validation"]["loss"] for h in history]
    assert results.best_epoch == validation.index(min(validation))
    assert results.chosen_share == 1.0
    assert results.trained_classes == ("ant", "bee")
    saved = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True)
    assert same(saved.state_dict(), weights(run))
    assert json.loads((run / "manifest.json").read_text())["command"] == "tune"
    assert Recipe.from_dict(json.loads((run / "recipe.json").read_text())).shots == 4


def test_bad_input_leaves_no_folder(recipe: Recipe, tmp_path: Path) -> None:
    for bad in (
        replace(recipe, shots=9),
        replace(recipe, classes=7),
        replace(recipe, objective="nothing"),
        replace(recipe, weights={"x": 1.0}),
    ):
        with pytest.raises(refocus.InputError):
            refocus.tune(bad, tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    with pytest.raises(refocus.InputError, match="never overwritten"):
        refocus.tune(recipe, tmp_path / "run", progress=False)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine"]


@pytest.mark.slow
def test_when_tuning_does_not_help_the_original_is_kept(recipe: Recipe, tmp_path: Path) -> None:
    """A rate so low that nothing changes: no gain is no reason for a new model."""
    results = refocus.tune(
        replace(recipe, objective="finetune", lr=1e-9, epochs=2), tmp_path / "run", progress=False
    )
    original = load_file(Path(recipe.model) / "model.safetensors")
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert results.chosen_share == 0.0
    assert not results.verdict.ship
    assert results.verdict.sentence.startswith("Keep the original model: ")
    assert same(kept, original)
    assert results_of(tmp_path / "run") == results
    assert json.loads((tmp_path / "run" / "results.json").read_text())["schema"] == 2
    assert set(results.unseen) == {"blurred", "plain", "moved"}


@pytest.mark.slow
def test_recomputed_maps_train_the_same_weights(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in (False, True):
        order = quick_recipe(model_folder, image_folders, objective="refocus", recompute=name)
        tune.tune(order, tmp_path / str(name), progress=False)
    kept, anew = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("False", "True")
    )
    before = load_file(model_folder / "model.safetensors")
    ours, theirs = (
        torch.cat([(after[w] - before[w]).flatten() for w in before]) for after in (anew, kept)
    )
    assert theirs.abs().max() > 1e-3
    assert (
        torch.cosine_similarity(ours, theirs, dim=0) > 0.9999
    )  # AdamW makes whole steps even of rounding errors of tiny gradients


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["refocus", "consistency"])
def test_the_share_of_the_way_is_the_objectives_own_or_the_users(
    objective: str, model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    kept = {}
    for name, changes in {"own": {}, "half": {"share": 0.5}, "all": {"share": 1.0}}.items():
        results = tune.tune(
            quick_recipe(model_folder, image_folders, objective=objective, **changes),
            tmp_path / name,
            progress=False,
        )
        kept[name] = (
            results.chosen_share,
            load_file(tmp_path / name / "model" / "model.safetensors"),
        )
    assert [share for share, _ in kept.values()] == [0.5, 0.5, 1.0]
    start, weight = load_file(model_folder / "model.safetensors"), "blocks.0.attn.qkv.weight"
    torch.testing.assert_close(kept["own"][1][weight], (start[weight] + kept["all"][1][weight]) / 2)
    with pytest.raises(refocus.InputError, match="share 0: must be a number above 0"):
        quick_recipe(model_folder, image_folders, share=0)


@pytest.mark.slow
def test_the_last_epoch_can_be_kept(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    results = tune.tune(
        quick_recipe(model_folder, image_folders, select="last", epochs=3),
        tmp_path / "run",
        progress=False,
    )
    assert results.best_epoch == 2
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["model"]
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(last[name], kept[name]) for name in kept)


def test_a_run_goes_on_only_with_the_teacher_that_it_began_with(
    recipe: Recipe, tmp_path: Path
) -> None:
    for place in ("teacher/model.safetensors", "adain/vgg.pth", "r.pth"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("weights")
    for teacher, file in (
        (str(tmp_path / "teacher"), "teacher/model.safetensors"),
        (f"torchvision:resnet18@{tmp_path / 'r.pth'}", "r.pth"),
        ("torchvision:resnet18", "adain/vgg.pth"),
    ):
        taught = replace(recipe, teacher=teacher, adain=str(tmp_path / "adain"))
        run = tmp_path / f"run of {Path(file).name}"
        run.mkdir()
        tune._begin(taught, Selection([], [], []), {"weights": "digest"}, run)
        refuse_changed(run / IDENTITY, {"weights": "digest"}, "run")
        (tmp_path / file).write_text("others")
        with pytest.raises(refocus.InputError, match=Path(file).name):
            refuse_changed(run / IDENTITY, {"weights": "digest"}, "run")


def test_a_run_goes_on_only_from_the_model_and_teacher_that_a_name_meant(
    recipe: Recipe, tmp_path: Path, tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub may give others for the same name: no file of the run's says so."""

    def stop(line: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    def teacher(network: torch.nn.Module, mean: float = 0.5) -> None:
        known = Teacher(network, (32, 32), (mean,) * 3, (0.5,) * 3)
        monkeypatch.setattr(course, "load_teacher", lambda *_args, **_more: known)

    first, other = tiny(), tiny()
    recipe = replace(recipe, objective="finetune", weights={"shape": 1.0}, teacher="hf:someone/vit")
    teacher(first)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        refocus.tune(recipe, run, on_epoch=stop, progress=False)
    for network, mean in ((other, 0.5), (first, 0.4)):
        teacher(network, mean)
        with pytest.raises(refocus.InputError, match="its teacher's weights, preprocessing or"):
            refocus.resume(run, progress=False)
    teacher(first)
    config = Path(recipe.model) / "config.json"
    before = config.read_text()
    said = json.loads(before)
    said["pretrained_cfg"]["mean"] = [0.4, 0.4, 0.4]
    config.write_text(json.dumps(said))
    with pytest.raises(refocus.InputError, match="its model's preprocessing or class names have"):
        refocus.resume(run, progress=False)
    assert base_changed(run, refocus.load(recipe.model))
    config.write_text(before)
    assert not base_changed(run, refocus.load(recipe.model))
    with pytest.raises(KeyboardInterrupt):
        refocus.resume(run, on_epoch=stop, progress=False)


def test_no_run_is_written_among_the_backgrounds_that_it_reads(
    recipe: Recipe, tmp_path: Path
) -> None:
    shutil.copytree(Path(recipe.images, "ant"), tmp_path / "scenes")
    recipe = replace(recipe, backgrounds=tmp_path / "scenes")
    with pytest.raises(refocus.InputError, match="lies inside backgrounds"):
        refocus.tune(recipe, tmp_path / "scenes" / "run", progress=False)


def test_a_run_of_a_model_without_names_is_resumed_and_its_base_known(
    recipe: Recipe, tmp_path: Path, tiny: Build
) -> None:
    def stop(line: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    model, run = tiny(), tmp_path / "run"
    model.pretrained_cfg["label_names"] = None
    refocus.save(model, tmp_path / "bare")
    recipe = replace(recipe, model=tmp_path / "bare", shots=1, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        refocus.tune(recipe, run, on_epoch=stop, progress=False)
    with pytest.raises(KeyboardInterrupt):
        refocus.resume(run, on_epoch=stop, progress=False)
    found = refocus.tune(recipe, run, progress=False)
    assert refocus.tune(recipe, run, progress=False) == found
    assert not base_changed(run, refocus.load(tmp_path / "bare"))
    shutil.move(recipe.images, tmp_path / "elsewhere")
    assert not base_changed(run, refocus.load(tmp_path / "bare"))
    model.head.bias.data += 1
    refocus.save(model, tmp_path / "other")
    assert base_changed(run, refocus.load(tmp_path / "other"))


def test_a_finished_run_is_not_read_as_one_of_images_that_were_added_since(
    recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    chosen = choose_samples(recipe, refocus.load(recipe.model))
    tune._begin(recipe, chosen, {}, run)
    write_json(run / "results.json", to_json(FOUND))
    write_json(run / "manifest.json", {})
    for file in Path(recipe.images).rglob("*.png"):
        os.utime(file, ns=(1, 1))  # a time alone says nothing
    assert refocus.tune(recipe, run, progress=False) == FOUND
    for folder in (recipe.masks, recipe.images):
        shutil.copy(Path(folder, "ant", "0.png"), Path(folder, "ant", "more.png"))
        with pytest.raises(refocus.InputError, match=f"out .*files in {folder} have been added"):
            refocus.tune(recipe, run, progress=False)
        if folder == recipe.masks:
            Path(folder, "ant", "more.png").unlink()


def test_a_finished_run_whose_model_is_gone_is_concluded_again_or_refused(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = quick_recipe(model_folder, image_folders, objective="finetune", epochs=1, shots=1)
    run = tmp_path / "run"
    found = refocus.tune(recipe, run, progress=False)
    kept = load_file(run / "model" / "model.safetensors")
    caplog.set_level("INFO", logger="refocus")
    for gone in ("model/model.safetensors", "results.json"):
        (run / gone).unlink()
        caplog.clear()
        assert refocus.tune(recipe, run, progress=False) == found
        assert f"{gone} is gone; made again" in caplog.text
        assert same(load_file(run / "model" / "model.safetensors"), kept)
    caplog.clear()
    monkeypatch.setattr(tune, "check_tracker", lambda _: None)  # which may not be installed
    assert refocus.tune(recipe, run, progress=False, track="tensorboard") == found
    assert [r.getMessage() for r in caplog.records] == [
        "track tensorboard: the run is already complete; nothing is logged"
    ]
    shutil.rmtree(run / "model")
    with pytest.raises(refocus.InputError, match=r"model is gone; the same `refocus tune` again"):
        refocus.load(run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(refocus.InputError, match=r"out .* is gone, and so are the checkpoints"):
        refocus.tune(recipe, run, progress=False)


def test_other_processes_wait_while_the_first_one_checks_for_harm() -> None:
    found = course.accelerator_for(Recipe("m", "i", "k", device="cpu"))
    assert found.init_handler.timeout == timedelta(days=1)  # torch's own is ten minutes


def test_a_callers_own_switch_of_gradients_does_not_reach_into_the_training(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def begun(_track: object) -> None:
        found.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        raise refocus.InputError("enough")

    monkeypatch.setattr(tune, "check_tracker", begun)
    for around in (torch.no_grad(), torch.inference_mode()):
        for call in (lambda: tune.tune(recipe, "run"), lambda: tune.resume("run")):
            with around, pytest.raises(refocus.InputError, match="enough"):
                call()
    assert found == [(True, False)] * 4
