"""The loop: bit-identical resume, a stop that keeps what was good, several processes, and the run
folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

import refocus
from refocus import Recipe
from refocus.objectives import registry
from refocus.tuning import loop, selection, tune


@pytest.fixture
def recipe(model_folder: Path, image_folders: tuple[Path, Path]) -> Recipe:
    images, masks = image_folders
    return Recipe(
        model=str(model_folder),
        images=str(images),
        masks=str(masks),
        shots=4,
        epochs=4,
        batch_size=4,
        lr=1e-3,
        device="cpu",
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "best.safetensors")


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    """After the last epoch: the best one may lie before an interruption, and would be equal
    whatever the resumed epochs did.
    """
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


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
    assert results["best_epoch"] == validation.index(min(validation))
    assert results["chosen_share"] == 1.0
    assert results["trained_classes"] == ["ant", "bee"]
    saved = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True)
    assert same(saved.state_dict(), weights(run))
    assert json.loads((run / "manifest.json").read_text())["command"] == "tune"
    assert Recipe.from_dict(json.loads((run / "recipe.json").read_text())).shots == 4


def test_no_validation_or_check_image_was_trained_on(recipe: Recipe) -> None:
    chosen = selection.choose_samples(recipe, refocus.load(recipe.model))
    assert [s.label for s in chosen.train] == [0] * 4 + [1] * 4
    assert {s.label for s in chosen.select} == {2, 3}
    assert {s.label for s in chosen.check} == {0, 1, 2, 3}
    assert not set(chosen.train) & (set(chosen.select) | set(chosen.check))
    assert len(chosen.check) == 24 - 8
    assert (
        len(
            selection.choose_samples(
                replace(recipe, check_images=6), refocus.load(recipe.model)
            ).check
        )
        == 6
    )


def test_a_separate_validation_folder(recipe: Recipe, tmp_path: Path) -> None:
    from tests.makers import make_images

    images, masks = make_images(tmp_path / "val", count=2, seed=1)
    model = refocus.load(recipe.model)
    chosen = selection.choose_samples(replace(recipe, val=str(images), val_masks=str(masks)), model)
    assert all(images in s.image.parents for s in chosen.check)
    assert {s.label for s in chosen.select} == {2, 3}
    with pytest.raises(refocus.InputError, match="--val-masks: missing"):
        selection.choose_samples(replace(recipe, val=str(images)), model)
    with pytest.raises(refocus.InputError, match="--val is missing"):
        selection.choose_samples(replace(recipe, val_masks=str(masks)), model)
    itself = selection.choose_samples(
        replace(recipe, val=recipe.images, val_masks=recipe.masks), model
    )
    assert not {s.image for s in itself.train} & {s.image for s in itself.check}


@pytest.mark.parametrize("name", registry.OBJECTIVES)
def test_resume_ends_with_the_same_bits(
    recipe: Recipe, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(recipe, objective=name)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    refocus.tune(recipe, whole, progress=False)

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refocus.tune(recipe, cut, on_epoch=stop, progress=False)
    assert not (cut / "manifest.json").exists()
    with (cut / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2, "half')  # as a crash in the middle of an epoch's records leaves it
    monkeypatch.chdir(tmp_path)
    torch.rand(7)  # whatever happened to the generator in between must not matter
    refocus.resume(cut, progress=False)
    assert same(weights(whole), weights(cut))
    assert same(last_weights(whole), last_weights(cut))
    assert same(
        load_file(whole / "model" / "model.safetensors"),
        load_file(cut / "model" / "model.safetensors"),
    )
    assert (whole / "history.jsonl").read_text() == (cut / "history.jsonl").read_text()
    assert (whole / "results.json").read_text() == (cut / "results.json").read_text()


def test_resume_with_dropout_needs_the_generator_state(
    recipe: Recipe, tiny: Any, tmp_path: Path
) -> None:
    refocus.save(tiny(), tmp_path / "dropout")
    config = json.loads((tmp_path / "dropout" / "config.json").read_text())
    config["model_args"]["proj_drop_rate"] = 0.3  # timm does not write it of itself
    (tmp_path / "dropout" / "config.json").write_text(json.dumps(config))
    assert refocus.load(tmp_path / "dropout").blocks[0].mlp.drop1.p == 0.3
    recipe = replace(recipe, model=str(tmp_path / "dropout"))
    refocus.tune(recipe, tmp_path / "whole", progress=False)

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refocus.tune(recipe, tmp_path / "cut", on_epoch=stop, progress=False)
    refocus.resume(tmp_path / "cut", progress=False)
    assert same(last_weights(tmp_path / "whole"), last_weights(tmp_path / "cut"))


def test_complete_does_what_is_left_of_a_run(recipe: Recipe, tmp_path: Path) -> None:
    def stop(line: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    whole = tune.complete(recipe, tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        refocus.tune(recipe, tmp_path / "cut", on_epoch=stop, progress=False)
    assert tune.complete(recipe, tmp_path / "cut", progress=False) == whole
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert tune.complete(recipe, tmp_path / "whole", progress=False) == whole
    with pytest.raises(refocus.InputError, match="another recipe"):
        tune.complete(replace(recipe, epochs=5), tmp_path / "whole", progress=False)


def test_resume_refuses_what_is_complete_or_no_run(recipe: Recipe, tmp_path: Path) -> None:
    refocus.tune(replace(recipe, epochs=1), tmp_path / "run", progress=False)
    with pytest.raises(refocus.InputError, match="this run is complete"):
        refocus.resume(tmp_path / "run")
    with pytest.raises(refocus.InputError, match="not a run folder"):
        refocus.resume(tmp_path / "nowhere")


def test_a_nonfinite_term_stops_by_name_and_keeps_the_last_good_checkpoint(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, calls = registry.losses.background, []

    def explode(relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return genuine(relevance, mask) * (float("nan") if len(calls) > 4 else 1.0)

    monkeypatch.setattr(registry.losses, "background", explode)
    with pytest.raises(loop.Diverged, match=r"epoch 1, step 1: term 'background' is nan"):
        refocus.tune(
            recipe, tmp_path / "run", progress=False
        )  # an epoch: 2 steps and 1 validation batch
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert kept["position"]["epoch"] == 0
    assert all(value.isfinite().all() for value in kept["model"].values())
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tolerance", -5),
        ("weight_decay", -1),
        ("seed", -1),
        ("class_seed", -1),
        ("lr", float("nan")),
        ("weights", {"background": float("nan")}),
        ("flip", 2),
        ("shots", 0),
        ("precision", "fp8"),
        ("device", "tpu"),
        ("classes", 0),
    ],
)
def test_recipes_refuse_values_that_would_fail_later(
    recipe: Recipe, field: str, value: object
) -> None:
    with pytest.raises(refocus.InputError, match=r"--(weight|" + field.replace("_", "-") + ")"):
        replace(recipe, **{field: value})


def test_recipes_refuse_unknown_keys(recipe: Recipe) -> None:
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(refocus.InputError, match="unknown key 'epoch'"):
        Recipe.from_dict({**recipe.to_dict(), "epoch": 3})


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


def test_when_tuning_does_not_help_the_original_is_kept(recipe: Recipe, tmp_path: Path) -> None:
    """A rate so low that nothing changes: no gain is no reason for a new model."""
    results = refocus.tune(
        replace(recipe, objective="finetune", lr=1e-9, epochs=2), tmp_path / "run", progress=False
    )
    original = load_file(Path(recipe.model) / "model.safetensors")
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert results["chosen_share"] == 0.0
    assert results["finding"].startswith("tuning did not help: the original weights are kept")
    assert same(kept, original)
    assert (
        json.loads((tmp_path / "run" / "results.json").read_text())["finding"] == results["finding"]
    )


def test_bfloat16_follows_float32(recipe: Recipe, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        refocus.tune(
            replace(recipe, precision=precision, epochs=2, lr=1e-4),
            tmp_path / precision,
            progress=False,
        )
    lines = [
        json.loads((tmp_path / p / "history.jsonl").read_text().splitlines()[-1])["train"]
        for p in ("fp32", "bf16")
    ]
    assert lines[0] != lines[1]
    assert lines[1]["loss"] == pytest.approx(lines[0]["loss"], rel=0.05)


def test_batches_are_dealt_out_over_processes() -> None:
    for size, batch, processes in [(16, 8, 2), (15, 8, 2), (9, 8, 2), (5, 2, 3)]:
        whole = loop.Batches(size, batch, seed=1)
        parts = [
            loop.Batches(size, batch, seed=1, process=p, processes=processes)
            for p in range(processes)
        ]
        assert {len(p) for p in parts} == {len(list(p)) for p in parts} == {len(whole)}
        for step, together in enumerate(whole):
            shares = [list(p)[step] for p in parts]
            owned = [
                i for p, share in zip(parts, shares, strict=True) if p.weights[step] for i in share
            ]
            assert sorted(owned) == sorted(together)
            assert sum(p.weights[step] for p in parts) == pytest.approx(1)
            for p, share in zip(parts, shares, strict=True):
                assert p.weights[step] in (0, pytest.approx(len(share) / len(together)))
    whole.epoch = 1
    assert list(whole) != list(loop.Batches(5, 2, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "batch"),
    [("torch.distributed.run", 8), ("torch.distributed.run", 5), ("accelerate.commands.launch", 4)],
)
def test_two_processes_reach_what_one_reaches(
    recipe: Recipe, tmp_path: Path, launcher: str, batch: int
) -> None:
    """9 images: with batches of 8 the second process has no share in the last step, with 5 the
    shares are uneven.
    """
    recipe = replace(recipe, classes=3, shots=3, batch_size=batch)
    refocus.tune(recipe, tmp_path / "one", progress=False)
    options = {
        "torch.distributed.run": ["--nproc-per-node", "2", "--standalone"],
        "accelerate.commands.launch": [
            "--multi_gpu",
            "--num_processes",
            "2",
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
            "--dynamo_backend",
            "no",
            "--main_process_port",
            "0",
        ],
    }[launcher]
    script = tmp_path / "launch.py"
    script.write_text("from refocus.cli.main import main\nmain()\n")
    folders = [
        "--model",
        recipe.model,
        "--images",
        recipe.images,
        "--masks",
        recipe.masks,
        "--out",
        str(tmp_path / "two"),
    ]
    settings = [
        "--classes",
        "3",
        "--shots",
        "3",
        "--epochs",
        "4",
        "--batch-size",
        str(batch),
        "--lr",
        "1e-3",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-m", launcher, *options, str(script), "tune", *folders, *settings]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["processes"] == 2
    one, two = (
        [json.loads(line) for line in (tmp_path / run / "history.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    )
    for a, b in zip(one, two, strict=True):
        assert b["train"] == pytest.approx(a["train"], rel=1e-3)
        assert b["validation"] == pytest.approx(a["validation"], rel=1e-3)
    # key biases cancel in the softmax: their gradient is rounding noise, which AdamW blows up; so
    # outputs are compared
    images = torch.randn(4, 3, 32, 32)
    answers = [
        refocus.explain(refocus.load(tmp_path / run / "model"), images) for run in ("one", "two")
    ]
    torch.testing.assert_close(answers[1].logits, answers[0].logits, rtol=1e-3, atol=1e-3)
    assert (answers[1].relevance - answers[0].relevance).abs().mean() < 1e-3
    original = refocus.explain(refocus.load(recipe.model), images)
    tuned = refocus.load(recipe.model)
    tuned.load_state_dict(weights(tmp_path / "two"))
    assert (refocus.explain(tuned, images).logits - original.logits).abs().max() > 1e-2
