"""`refocus tune`: resumes, validation folders, presets, and bad folders refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from refocus.cli import main
from tests.makers import make_images, run, words

DAMAGES = {
    "empty class": "bee: class folder without images",
    "unknown class": "the model knows no class 'zebra'; it knows ant, bee, cat, dog",
    "mask without image": "0.png: mask without an image of that name in class 'ant'",
    "image without mask": "image without a mask",
    "mask of another size": "the mask is 10x10 pixels, its image 40x36",
    "all-zero mask": "the mask is all background",
    "all-one mask": "the mask is all foreground",
    "truncated image": "cannot be read as an image",
}


@pytest.mark.slow
def test_tune_resumes_and_takes_no_other_option_then(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from refocus import Recipe, tune

    def stop(line: dict[str, object]) -> None:
        raise KeyboardInterrupt

    recipe = Recipe(
        model=str(model_folder),
        images=str(image_folders[0]),
        masks=str(image_folders[1]),
        epochs=2,
        device="cpu",
    )
    with pytest.raises(KeyboardInterrupt):
        tune(recipe, tmp_path / "run", on_epoch=stop, progress=False)
    assert run(monkeypatch, "tune", "--resume", tmp_path / "run", "--lr", "1") == 2
    assert (
        "--lr: --resume continues as the run was started and takes no option but --code"
        in capsys.readouterr().err
    )
    assert run(monkeypatch, "tune", "--resume", tmp_path / "run") == 0
    assert (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.slow
def test_tune_with_skip_bad_a_validation_folder_and_the_tuned_weights_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    val, val_masks = make_images(tmp_path / "val", count=1, seed=2)
    (images / "ant" / "0.png").write_text("no image")
    options = (
        "--skip-bad",
        "--val",
        val,
        "--val-masks",
        val_masks,
        "--no-do-no-harm",
        "--objective",
        "relevance",
        "--shots",
        5,
        "--epochs",
        1,
        "--device",
        "cpu",
    )
    given = words(model=model_folder, images=images, masks=masks, out=tmp_path / "run")
    assert run(monkeypatch, "tune", *given, *options) == 0
    assert "left out" in capsys.readouterr().err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["chosen_share"] == 1.0
    assert results["check_images"] == 3  # one of the four chose the epoch
    chosen = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert not any("ant/0.png" in row["image"] for row in chosen["train"])


def each(folder: Path, change: Callable[[Path], object]) -> None:
    for path in folder.iterdir():
        change(path)


def damage(kind: str, images: Path, masks: Path) -> None:
    """One defect in the user's folders."""
    match kind:
        case "empty class":
            each(images / "bee", Path.unlink)
        case "unknown class":
            (images / "bee").rename(images / "zebra")
        case "mask without image":
            (images / "ant" / "0.png").unlink()
        case "image without mask":
            each(masks / "ant", Path.unlink)
        case "mask of another size":
            each(masks / "ant", Image.new("L", (10, 10), 255).save)
        case "all-zero mask":
            each(masks / "ant", Image.new("L", (40, 36), 0).save)
        case "all-one mask":
            each(masks / "ant", Image.new("L", (40, 36), 255).save)
        case "truncated image":
            each(images / "ant", lambda path: path.write_bytes(path.read_bytes()[:200]))


@pytest.mark.parametrize("kind", DAMAGES)
def test_bad_folders_are_refused_in_one_line_and_leave_nothing(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    damage(kind, images, masks)
    out = tmp_path / "run"
    given = words(model=model_folder, images=images, masks=masks, out=out)
    assert run(monkeypatch, "tune", *given) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert DAMAGES[kind] in error[0]
    assert not out.exists()


@pytest.mark.slow
def test_a_preset_fills_in_what_the_command_leaves_open(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    places = words(model=model_folder, images=images, masks=masks, out=tmp_path / "run")
    command = [
        "tune",
        "--preset",
        "DeiT-B",
        *places,
        "--epochs",
        "1",
        "--temperature",
        "0.7",
        "--device",
        "cpu",
    ]
    assert CliRunner().invoke(main.app, list(map(str, command))).exit_code == 0
    kept = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (kept["lr"], kept["temperature"], kept["model"]) == (
        8e-7,
        0.7,
        str(model_folder.resolve()),
    )


@pytest.mark.slow
def test_the_papers_protocol_keeps_the_best_epoch_without_a_rule(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    given = words(model=model_folder, images=images, masks=masks, out=tmp_path / "run")
    options = ["--protocol", "paper", "--objective", "relevance", "--epochs", "1"]
    done = CliRunner().invoke(main.app, ["tune", *given, *options, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    kept = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (kept["do_no_harm"], kept["val_images"], kept["mask_score"]) == (False, 414, 0.0)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["chosen_share"] == 1.0


@pytest.mark.slow
def test_tuning_without_labels_and_of_another_map(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders

    def weights(name: str, *options: str) -> dict[str, torch.Tensor]:
        given = words(model=model_folder, images=images, masks=masks, out=tmp_path / name)
        common = ["--objective", "relevance", "--epochs", "1", "--device", "cpu"]
        common += ["--no-do-no-harm", "--lr", "1e-3", "--check-images", "1"]
        done = CliRunner().invoke(main.app, ["tune", *given, *common, *options])
        assert done.exit_code == 0, done.output
        return load_file(tmp_path / name / "model" / "model.safetensors")

    known = weights("known")
    predicted = weights("predicted", "--target", "predicted")
    rollout = weights("rollout", "--map", "rollout")
    assert any(not torch.equal(known[name], predicted[name]) for name in known)
    assert any(not torch.equal(known[name], rollout[name]) for name in known)
    kept = json.loads((tmp_path / "predicted" / "recipe.json").read_text())
    assert kept["target"] == "predicted"
