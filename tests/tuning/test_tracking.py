"""Trackers get losses, validation, the table and maps, and cost a run nothing."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from refocus import InputError, tune
from refocus.tuning import tracking
from refocus.tuning.tune import resume
from tests.makers import run
from tests.tuning.makers import quick_recipe, weights

Folders = tuple[Path, Path]
TERMS = ("loss", "background", "foreground", "classification")


@pytest.mark.slow
def test_tensorboard_holds_losses_table_and_maps(
    model_folder: Path, image_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    images, masks = image_folders
    given = ["--model", model_folder, "--images", images, "--masks", masks]
    how = ["--epochs", 2, "--shots", 2, "--lr", "1e-3", "--no-do-no-harm", "--device", "cpu"]
    how += ["--objective", "relevance"]
    out = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tensorboard's own imports
        assert run(monkeypatch, "tune", *given, *how, "--out", out, "--track", "tensorboard") == 0
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(out / "track" / "refocus")).Reload()
    tags = events.Tags()
    for part in ("train", "validation"):
        assert {f"{part}/{term}" for term in TERMS} <= set(tags["scalars"])
        assert [e.step for e in events.Scalars(f"{part}/loss")] == [0, 1]
    assert 0 < events.Scalars("kept/share")[0].value <= 1
    assert {f"maps/{i}" for i in range(4)} <= set(tags["images"])
    assert events.Images("maps/0")[0].width == 3 * events.Images("maps/0")[0].height
    text = events.Tensors("candidates/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.startswith("| share of tuned weights | top-1, %")
    assert len(text.splitlines()) >= 4


class StandIn:
    """A tracker that keeps what it is told, or fails at it."""

    def __init__(self, fails: bool = False, **options: Any) -> None:
        self.told: list[tuple[str, Any]] = [("options", options)]
        self.fails = fails

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(("settings", values))

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        if self.fails:
            raise OSError("connection lost")
        self.told.append(("log", values))

    def finish(self) -> None:
        self.told.append(("finish", None))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """In place of accelerate's mlflow, and of the package."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    made = StandIn()
    package = ModuleType("mlflow")
    package.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    vars(package)["log_image"] = lambda picture, file: made.told.append((file, picture))
    vars(package)["log_table"] = lambda data, file: made.told.append((file, data))
    monkeypatch.setitem(sys.modules, "mlflow", package)

    def make(**options: Any) -> StandIn:
        made.told.append(("options", options))
        return made

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "mlflow", make)
    return made


@pytest.mark.slow
def test_mlflow_is_told_everything_and_the_weights_stay_the_same(
    stand_in: StandIn, model_folder: Path, image_folders: Folders, tmp_path: Path
) -> None:
    recipe = quick_recipe(model_folder, image_folders)
    tune(recipe, tmp_path / "tracked", track="mlflow", progress=False)
    tune(recipe, tmp_path / "plain", progress=False)
    one, other = weights(tmp_path / "tracked"), weights(tmp_path / "plain")
    assert all(torch.equal(one[name], other[name]) for name in other)
    told = dict(stand_in.told)
    assert ("options", {"experiment_name": "refocus", "run_name": "tracked"}) in stand_in.told
    assert told["settings"]["epochs"] == 2
    assert told["maps/0.png"].dtype == np.uint8
    assert list(told["candidates.json"]) == list(tracking.COLUMNS)
    assert stand_in.told[-1] == ("finish", None)


@pytest.mark.slow
def test_a_tracker_that_fails_on_the_way_costs_a_warning(
    stand_in: StandIn,
    model_folder: Path,
    image_folders: Folders,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stand_in.fails = True
    recipe = quick_recipe(model_folder, image_folders)
    tune(recipe, tmp_path / "run", track="mlflow", progress=False)
    assert (tmp_path / "run" / "manifest.json").exists()
    assert "mlflow: not logged (connection lost)" in caplog.text


def test_a_tracker_that_cannot_start_leaves_nothing(
    stand_in: StandIn,
    model_folder: Path,
    image_folders: Folders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(values: dict[str, Any]) -> None:
        raise RuntimeError("no account")

    monkeypatch.setattr(stand_in, "store_init_configuration", refuse)
    recipe = quick_recipe(model_folder, image_folders)
    with pytest.raises(InputError, match=r"track mlflow: cannot be started .no account"):
        tune(recipe, tmp_path / "run", track="mlflow", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_tracker(
    stand_in: StandIn, model_folder: Path, image_folders: Folders, tmp_path: Path
) -> None:
    def interrupt(line: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    recipe = quick_recipe(model_folder, image_folders)
    with pytest.raises(KeyboardInterrupt):
        tune(recipe, tmp_path / "run", track="mlflow", progress=False, on_epoch=interrupt)
    assert stand_in.told[-1] == ("finish", None)
    stand_in.told.clear()
    resume(tmp_path / "run", track="mlflow", progress=False)
    logged = [values for kind, values in stand_in.told if kind == "log"]
    assert sum("train/loss" in values for values in logged) == 1


def test_unknown_and_missing_trackers_are_refused(
    model_folder: Path, image_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = quick_recipe(model_folder, image_folders)
    with pytest.raises(InputError, match="track paper: choose one of tensorboard, trackio, wandb"):
        tune(recipe, tmp_path / "run", track="paper")
    monkeypatch.setattr(tracking, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match="track wandb: wandb is not installed"):
        tune(recipe, tmp_path / "run", track="wandb")


@pytest.mark.slow
def test_wandb_offline(
    model_folder: Path, image_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    recipe = quick_recipe(model_folder, image_folders, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tune(recipe, tmp_path / "run", track="wandb", progress=False)
    files = [p.name for p in (tmp_path / "wandb").rglob("*") if p.is_file()]
    assert sum(name.endswith(".png") for name in files) == 4
    assert any(name.startswith("candidates") for name in files)
    assert any(name.endswith(".wandb") for name in files)


@pytest.mark.slow
def test_trackio_on_this_machine(
    model_folder: Path, image_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    recipe = quick_recipe(model_folder, image_folders, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tune(recipe, tmp_path / "run", track="trackio", progress=False)
        from trackio.sqlite_storage import SQLiteStorage

        lines = SQLiteStorage.get_logs("refocus", "run")
    assert any("train/loss" in line for line in lines)
    assert any("candidates" in line for line in lines)
    assert sum(any(k.startswith("maps/") for k in line) for line in lines) == 4
