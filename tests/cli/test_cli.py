"""The command line as a stranger uses it: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.makers import make_images, run


def test_help_names_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    for command in ("demo", "explain", "masks", "tune", "evaluate", "shifts", "audit", "report"):
        assert command in shown
        assert run(monkeypatch, command, "--help") == 0
        assert ("--on" if command == "report" else "--out") in capsys.readouterr().out


def test_explain_writes_overlays_and_numbers(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = image_folders[0] / "cat" / "1.png"
    out = tmp_path / "out"
    code = run(
        monkeypatch,
        "explain",
        image,
        image_folders[0] / "dog",
        "--model",
        model_folder,
        "--against",
        model_folder,
        "--class",
        "bee",
        "--out",
        out,
    )
    assert code == 0
    content = json.loads((out / "explanations.json").read_text())["images"]
    assert len(content) == 7
    first = content[0]["model"]
    assert first["explained"] == "bee"
    assert first["prediction"] == first["top5"][0]["class"]
    assert first["confidence"] == first["top5"][0]["confidence"] >= first["top5"][1]["confidence"]
    assert np.array(first["relevance"]).shape == (4, 4)
    assert content[0]["against"] == first
    assert sorted(p.name for p in out.glob("*.png")) == sorted(c["overlay"] for c in content)
    assert "1.png" in capsys.readouterr().out


def test_tune_then_evaluate_before_and_after(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = image_folders
    options = (
        "--epochs",
        "2",
        "--weight",
        "background=1",
        "--weight",
        "foreground=0.5",
        "--device",
        "cpu",
    )
    assert (
        run(
            monkeypatch,
            "tune",
            "--model",
            model_folder,
            "--images",
            images,
            "--masks",
            masks,
            "--out",
            tmp_path / "run",
            *options,
        )
        == 0
    )
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
    suites = json.loads((tmp_path / "ev" / "results.json").read_text())["suites"]
    assert list(suites) == ["a", "b"]
    assert suites["a"]["n"] == 24
    assert {"top1", "top5", "per_class", "against", "difference", "unreadable"} <= set(suites["a"])
    assert (
        len((tmp_path / "ev" / "records" / "a" / "standard.model.jsonl").read_text().splitlines())
        == 24
    )
    assert run(monkeypatch, "evaluate", *arguments) == 2
    assert "never overwritten" in capsys.readouterr().err


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
    assert "--lr: --resume goes on as the run was started" in capsys.readouterr().err
    assert run(monkeypatch, "tune", "--resume", tmp_path / "run") == 0
    assert (tmp_path / "run" / "manifest.json").exists()


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
        "--shots",
        5,
        "--epochs",
        1,
        "--device",
        "cpu",
    )
    assert (
        run(
            monkeypatch,
            "tune",
            "--model",
            model_folder,
            "--images",
            images,
            "--masks",
            masks,
            "--out",
            tmp_path / "run",
            *options,
        )
        == 0
    )
    assert "left out" in capsys.readouterr().err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["chosen_share"] == 1.0
    assert results["check_images"] == 4
    chosen = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert not any("ant/0.png" in row["image"] for row in chosen["train"])


def test_demo_prints_its_table_and_where_to_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from refocus.demo import story

    row = {
        "in_domain": 97.0,
        "shuffled": 44.6,
        "trained": 52.6,
        "untrained": 36.6,
        "background_share": 0.68,
    }
    monkeypatch.setattr(story, "run", lambda out, seed, device: {"biased": row, "refocus": row})
    assert run(monkeypatch, "demo", "--out", tmp_path / "d", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert "44.6" in shown
    assert "report.html" in shown


def test_explain_takes_any_file_name(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    odd = tmp_path / "price_$5_$6 [b].png"
    (image_folders[0] / "cat" / "0.png").rename(odd)
    assert run(monkeypatch, "explain", odd, "--model", model_folder, "--out", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


def test_evaluate_resumes_with_the_same_settings_only(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, on = tmp_path / "ev", f"a={image_folders[0]}"
    assert run(monkeypatch, "evaluate", "--model", model_folder, "--on", on, "--out", out) == 0
    assert (
        run(monkeypatch, "evaluate", "--model", model_folder, "--on", on, "--out", out, "--resume")
        == 2
    )
    assert "nothing to resume" in capsys.readouterr().err
    whole = json.loads((out / "results.json").read_text())
    (out / "manifest.json").unlink()
    lines = (out / "records" / "a" / "standard.model.jsonl").read_text().splitlines(keepends=True)
    (out / "records" / "a" / "standard.model.jsonl").write_text("".join(lines[:7]))
    assert (
        run(
            monkeypatch,
            "evaluate",
            "--model",
            model_folder,
            "--on",
            f"b={image_folders[0]}",
            "--out",
            out,
            "--resume",
        )
        == 2
    )
    assert (
        run(monkeypatch, "evaluate", "--model", model_folder, "--on", on, "--out", out, "--resume")
        == 0
    )
    assert json.loads((out / "results.json").read_text()) == whole


def damage(kind: str, images: Path, masks: Path) -> None:
    """One defect in the user's folders."""
    match kind:
        case "empty class":
            for path in (images / "bee").iterdir():
                path.unlink()
        case "unknown class":
            (images / "bee").rename(images / "zebra")
        case "mask without image":
            (images / "ant" / "0.png").unlink()
        case "image without mask":
            for path in (masks / "ant").iterdir():
                path.unlink()
        case "mask of another size":
            for path in (masks / "ant").iterdir():
                Image.new("L", (10, 10), 255).save(path)
        case "all-zero mask" | "all-one mask":
            for path in (masks / "ant").iterdir():
                Image.new("L", (40, 36), 0 if "zero" in kind else 255).save(path)
        case "truncated image":
            for path in (images / "ant").iterdir():
                path.write_bytes(path.read_bytes()[:200])


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
    assert (
        run(
            monkeypatch,
            "tune",
            "--model",
            model_folder,
            "--images",
            images,
            "--masks",
            masks,
            "--out",
            out,
        )
        == 2
    )
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert DAMAGES[kind] in error[0]
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "{images}/ant/0.png", "--model", "vit_smal_patch16_224"], "did you mean"),
        (
            ["explain", "{images}/ant/0.png", "--model", "swin_tiny_patch4_window7_224"],
            "windowed attention",
        ),
        (["explain", "{images}/ant/absent.png", "--model", "{model}"], "absent.png: no such image"),
        (
            ["explain", "{images}/ant/0.png", "--model", "{model}", "--class", "zebra"],
            "--class zebra",
        ),
        (["explain", "{images}/ant/0.png", "--model", "{model}", "--class", "²"], "--class ²"),
        (
            ["explain", "{images}/ant/0.png", "--model", "{model}", "--device", "tpu"],
            "--device tpu",
        ),
        (["evaluate", "--model", "{model}", "--on", "{images}"], "must be NAME=PATH"),
        (["evaluate", "--model", "{model}", "--on", "a={images}/absent"], "no such folder"),
        (
            ["evaluate", "--model", "swin_tiny_patch4_window7_224", "--on", "a={images}"],
            "windowed attention",
        ),
        (["tune", "--model", "{model}", "--images", "{images}"], "--masks: missing"),
        (
            ["tune", "--model", "{model}", "--images", "{images}/absent", "--masks", "{masks}"],
            "no such folder",
        ),
        (
            [
                "tune",
                "--model",
                "{model}",
                "--images",
                "{images}",
                "--masks",
                "{masks}",
                "--lr",
                "-1",
            ],
            "--lr -1",
        ),
        (
            [
                "tune",
                "--model",
                "{model}",
                "--images",
                "{images}",
                "--masks",
                "{masks}",
                "--weight",
                "background",
            ],
            "TERM=NUMBER",
        ),
        (
            [
                "tune",
                "--model",
                "{model}",
                "--images",
                "{images}",
                "--masks",
                "{masks}",
                "--lr",
                "fast",
            ],
            "--lr fast: must be a number",
        ),
        (
            [
                "tune",
                "--model",
                "{model}",
                "--images",
                "{images}",
                "--masks",
                "{masks}",
                "--objective",
                "x",
            ],
            "legal are relevance",
        ),
        (["masks", "{images}", "--backbone", "no/such"], "no such folder"),
        (
            ["evaluate", "--model", "{model}", "--on", "imagenet-a={images}"],
            "this set needs ImageNet's 1000",
        ),
        (
            ["evaluate", "--model", "{model}", "--on", "a={images}", "--protocol", "mine"],
            "legal are standard, paper, both",
        ),
        (
            ["evaluate", "--model", "{model}", "--on", "a={images}", "--shift", "mixed-rand"],
            "needs --masks NAME=PATH",
        ),
        (
            ["evaluate", "--model", "{model}", "--on", "a={images}", "--masks", "b={masks}"],
            "no --on has that name",
        ),
        (
            ["evaluate", "--model", "{model}", "--on", "a={images}", "--shift", "mixed"],
            "--shift mixed: no such shift",
        ),
        (["evaluate", "--model", "{model}", "--on", "cue-conflict={images}"], "--mapping: missing"),
        (
            [
                "evaluate",
                "--model",
                "{model}",
                "--on",
                "a={images}",
                "--groups",
                "a={images}/absent.csv",
            ],
            "must be CSV",
        ),
        (
            ["evaluate", "--model", "{model}", "--on", "imagenet-segmentation={images}/x.mat"],
            "expected is gtsegs_ijcv.mat",
        ),
        (["shifts", "{images}", "--masks", "{images}/absent"], "no such folder"),
        (
            ["shifts", "{images}", "--masks", "{masks}", "--kind", "only-fg,blur"],
            "--kind blur: no such shift",
        ),
        (["audit", "--model", "{model}", "--images", "{images}/absent"], "no such folder"),
    ],
)
def test_bad_arguments_are_refused_in_one_line_and_leave_nothing(
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"model": model_folder, "images": image_folders[0], "masks": image_folders[1]}
    out = tmp_path / "out"
    assert run(monkeypatch, *(a.format(**places) for a in arguments), "--out", out) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert not out.exists()
