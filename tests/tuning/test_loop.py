"""The loop: terms that are not finite, precision, and several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import refocus
from refocus import Recipe
from refocus.objectives import steps
from refocus.relevance.attention import attention_maps
from refocus.tuning import loop
from tests.tuning.makers import weights
from tests.zoo import build


def test_a_nonfinite_term_stops_by_name_and_keeps_the_last_good_checkpoint(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, calls = steps.losses.background, []

    def explode(*given: torch.Tensor | None) -> torch.Tensor:
        calls.append(1)
        return genuine(*given) * (float("nan") if len(calls) > 5 else 1.0)  # one is tried first

    monkeypatch.setattr(steps.losses, "background", explode)
    with pytest.raises(loop.Diverged, match=r"epoch 1, step 1: term 'background' is nan"):
        refocus.tune(
            recipe, tmp_path / "run", progress=False
        )  # an epoch: 2 steps and 1 validation batch
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert kept["position"]["epoch"] == 0
    assert all(value.isfinite().all() for value in kept["model"].values())
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "unused"), [("finetune", {}), ("swap", {}), ("consistency", {"energy": 0.0})]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_cpu_steps_without_a_map_form_attention_in_bfloat16_alone(
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    unused: dict[str, float],
    precision: str,
) -> None:
    formed: list[torch.dtype] = []

    @contextmanager
    def noted(model: nn.Module) -> Iterator[list[torch.Tensor]]:
        with attention_maps(model) as maps:
            yield maps
        formed.extend(each.dtype for each in maps)

    answered: list[torch.dtype] = []
    classification = steps.losses.classification

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        answered.append(logits.dtype)
        return classification(logits, labels)

    monkeypatch.setattr(steps, "attention_maps", noted)
    monkeypatch.setattr(steps.losses, "classification", loss)
    tried = replace(recipe, objective=objective, weights=unused, precision=precision, epochs=1)
    refocus.tune(tried, tmp_path / "run", progress=False)
    assert set(formed) == ({torch.bfloat16} if precision == "bf16" else set())
    assert set(answered) <= {torch.float32}
    assert bool(answered) == (objective != "consistency")


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
    """9 images over two processes.

    With batches of 8 the second has no share in the last step, with 5 the shares are uneven.
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
        "--objective",
        "relevance",
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


@pytest.mark.slow
def test_two_processes_tune_a_model_with_weights_that_nobody_reads(
    tmp_path: Path, image_folders: tuple[Path, Path]
) -> None:
    """DINOv2's mask token gets no gradient.

    A distributed wrapper takes that for an error unless it is told.
    """
    images, masks = image_folders
    refocus.save(build("DINOv2 (transformers)", "plain"), tmp_path / "model")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "refocus.cli",
        "tune",
    ]
    settings = [
        "--epochs",
        "2",
        "--shots",
        "1",
        "--batch-size",
        "2",
        "--lr",
        "1e-3",
        "--device",
        "cpu",
        "--no-do-no-harm",
    ]
    folders = [
        "--model",
        tmp_path / "model",
        "--images",
        images,
        "--masks",
        masks,
        "--out",
        tmp_path / "run",
    ]
    command = [*launch, *settings, *(str(part) for part in folders)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
