"""The command line as a stranger uses it: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import refocus
from tests.makers import invoke, run, words
from tests.zoo import build

TUNE = ["tune", "--model", "{model}", "--images", "{images}", "--masks", "{masks}"]
SAVED = {
    "EVA-02": ("EVA", "EVA-02"),
    "transformers": ("DINOv2 (transformers)", "registers"),
    "zero-shot": ("zero-shot CLIP, SigLIP", "SigLIP"),
    "torchvision": ("ViT (torchvision)", ""),
}


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
    assert first["prediction"] == first["top5"][0]["name"]
    assert first["confidence"] == first["top5"][0]["confidence"] >= first["top5"][1]["confidence"]
    assert np.array(first["relevance"]).shape == (4, 4)
    assert content[0]["against"] == first
    assert sorted(p.name for p in out.glob("*.png")) == sorted(c["overlay"] for c in content)
    assert "1.png" in capsys.readouterr().out


def test_demo_prints_its_table_and_where_to_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from refocus.demo import story

    row = story.DemoRow(
        in_domain=97.0, shuffled=44.6, trained=52.6, untrained=36.6, background_share=0.68
    )
    monkeypatch.setattr(story, "run", lambda out, settings: {"biased": row, "refocus": row})
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
            [*TUNE, "--lr", "-1"],
            "--lr -1",
        ),
        (
            [*TUNE, "--weight", "background"],
            "--weight background: must be NAME=NUMBER",
        ),
        (
            [*TUNE, "--lr", "fast"],
            "--lr fast: must be a number",
        ),
        (
            [*TUNE, "--objective", "x"],
            "choose one of relevance",
        ),
        (["masks", "{images}", "--backbone", "no/such"], "no such folder"),
        (
            ["evaluate", "--model", "{model}", "--on", "imagenet-a={images}"],
            "this set needs ImageNet's 1000",
        ),
        (
            ["evaluate", "--model", "{model}", "--on", "a={images}", "--protocol", "mine"],
            "--protocol mine: must be standard, paper or both",
        ),
        (
            ["evaluate", "--model", "{model}", "--on", "a={images}", "--shift", "mixed-rand"],
            "needs --masks NAME=PATH",
        ),
        (
            ["evaluate", "--model", "{model}", "--on", "a={images}", "--masks", "b={masks}"],
            "no test set in --on has that name",
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
            "absent.csv: cannot be read",
        ),
        (
            ["evaluate", "--model", "{model}", "--on", "imagenet-segmentation={images}/x.mat"],
            "expected gtsegs_ijcv.mat",
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*SAVED, "own"])
def test_the_commands_work_on_models_of_every_library(
    kind: str, tmp_path: Path, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    if kind == "own":
        model, tuned = (
            "py:tests.own_vit:build",
            f"py:tests.own_vit:build@{tmp_path / 'run' / 'model'}",
        )
    else:
        model, tuned = str(tmp_path / "model"), str(tmp_path / "run" / "model")
        refocus.save(build(*SAVED[kind]), model)
    invoke("explain", images / "ant" / "0.png", "--model", model, "--out", tmp_path / "look")
    settings = (
        "--epochs",
        1,
        "--shots",
        1,
        "--lr",
        1e-3,
        "--device",
        "cpu",
        "--objective",
        "refocus",
        "--no-do-no-harm",
    )
    invoke(
        "tune",
        *words(model=model, images=images, masks=masks, out=tmp_path / "run"),
        *settings,
    )
    before, after = (refocus.load(ref).state_dict() for ref in (model, tuned))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    invoke(
        "evaluate",
        *words(model=tuned, against=model, on=f"own={images}"),
        *words(out=tmp_path / "proof", device="cpu"),
    )
    trained = 2  # are not measured: one image of half of the classes
    measured = json.loads((tmp_path / "proof" / "results.json").read_text())["suites"]["own"]["n"]
    assert measured == 24 - trained
    invoke(
        "audit",
        *words(model=tuned, images=images, masks=masks, out=tmp_path / "audit", device="cpu"),
    )
    assert "own" not in refocus.vit.loading.source(refocus.load(tuned)) or kind == "own"
