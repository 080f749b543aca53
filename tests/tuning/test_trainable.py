"""What may move: the last blocks, or low-rank additions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import refocus
from refocus.tuning import tune
from refocus.tuning.course import refuse_unusable
from refocus.tuning.trainable import plain_state, restrict
from tests.makers import Build
from tests.tuning.makers import quick_recipe


@pytest.mark.slow
def test_only_the_last_blocks_move(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    tune.tune(
        quick_recipe(model_folder, image_folders, last_blocks=1, select="last"),
        tmp_path / "run",
        progress=False,
    )
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (model_folder, tmp_path / "run" / "model")
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("blocks.2.", "norm.", "head.")) for name in moved)


@pytest.mark.slow
def test_lora_moves_the_blocks_by_its_rank_and_is_merged(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    tune.tune(
        quick_recipe(model_folder, image_folders, lora=2, select="last", lr=1e-2),
        tmp_path / "run",
        progress=False,
    )
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (model_folder, tmp_path / "run" / "model")
    )
    assert before.keys() == after.keys()
    change = after["blocks.0.attn.qkv.weight"] - before["blocks.0.attn.qkv.weight"]
    assert 1 <= torch.linalg.matrix_rank(change, rtol=1e-3) <= 2
    assert torch.equal(before["patch_embed.proj.weight"], after["patch_embed.proj.weight"])
    timm.create_model(f"local-dir:{tmp_path / 'run' / 'model'}", pretrained=True)


def test_merged_low_rank_weights_answer_as_the_adapted_model(tiny: Build) -> None:
    plain, model = tiny(), tiny()
    restrict(model, lora=2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    plain.load_state_dict(plain_state(model))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain(images), model.eval()(images), rtol=1e-4, atol=1e-4)


def test_a_map_that_nothing_trainable_changes_is_refused_before_a_folder_is_made(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    frozen = quick_recipe(model_folder, image_folders, last_blocks=1, map="gradcam")
    with pytest.raises(refocus.InputError, match="all that it depends on is frozen"):
        refocus.tune(frozen, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    refuse_unusable(replace(frozen, last_blocks=2))
