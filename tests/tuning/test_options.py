"""Options of `tune`: the search for a rate, what may move, which epoch is kept, preprocessing and
presets; and input subsets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision import tv_tensors
from typer.testing import CliRunner

import refocus
from refocus import Recipe
from refocus.cli import main
from refocus.data.transforms import joint_transform
from refocus.probes.tools.subsets import CONFIDENCE, sufficient_subsets
from refocus.tuning import rates, tune
from refocus.tuning.trainable import plain_state, restrict

Build = Callable[..., nn.Module]


def recipe(model: Path, folders: tuple[Path, Path], **changes: Any) -> Recipe:
    images, masks = folders
    common: dict[str, Any] = {
        "epochs": 2,
        "lr": 1e-3,
        "shots": 2,
        "device": "cpu",
        "do_no_harm": False,
    }
    return Recipe(model=str(model), images=str(images), masks=str(masks), **{**common, **changes})


def test_auto_takes_the_highest_rate_that_passes_and_keeps_what_it_tried(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    order = recipe(
        model_folder, image_folders, objective="finetune", lr="auto", lr_range=(1e-6, 10.0)
    )
    results = tune.tune(order, run, progress=False)
    kept = json.loads((run / "rates.json").read_text())
    assert results["lr"] == kept["lr"] == kept["tried"][-1]["lr"]
    assert [t["lr"] for t in kept["tried"]] == rates.grid(1e-6, 10.0)[: len(kept["tried"])]
    assert len(kept["tried"]) > 1  # a rate of 10 ruins any model
    assert [t["passed"] for t in kept["tried"]] == [False] * (len(kept["tried"]) - 1) + [
        kept["passed"]
    ]


def test_the_papers_rule_for_a_rate() -> None:
    before = {"top1": 80.0, "classification": 0.5}
    assert rates.passes({"top1": 77.5, "classification": 0.5}, before)
    assert not rates.passes({"top1": 77.4, "classification": 0.1}, before)
    assert not rates.passes({"top1": 90.0, "classification": 0.51}, before)
    assert rates.grid(5e-7, 5e-6)[0] == 5e-6
    assert rates.grid(5e-7, 5e-6)[-1] == 5e-7


def test_recomputed_maps_train_the_same_weights(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in (False, True):
        order = recipe(model_folder, image_folders, objective="refocus", recompute=name)
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


@pytest.mark.parametrize(
    ("name", "settings"),
    [("finetune", {}), ("legrad", {}), ("relevance-exact", {}), ("energy", {"second_order": True})],
)
def test_recompute_is_refused_where_it_changes_nothing_or_cannot_work(
    name: str, settings: dict[str, bool]
) -> None:
    with pytest.raises(refocus.InputError, match="recompute: "):
        refocus.objective(name, recompute=True, **settings)


def test_recompute_refuses_dropped_maps_and_maps_of_ones_own(tiny: Build) -> None:
    from tests.own_vit import OwnViT

    for model, reason in (
        (tiny(attn_drop_rate=0.5).train(), "attention dropout of 0.5"),
        (OwnViT(by_hand=True), "its own maps"),
    ):
        images, masks = torch.randn(2, 3, 32, 32), torch.ones(2, 1, 32, 32)
        with pytest.raises(refocus.InputError, match=reason):
            refocus.objective("relevance", recompute=True)(
                model, images, masks, torch.tensor([0, 1])
            )


def test_the_share_of_the_way_is_the_objectives_own_or_the_users(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    kept = {}
    for name, changes in {"own": {}, "half": {"share": 0.5}, "all": {"share": 1.0}}.items():
        results = tune.tune(
            recipe(model_folder, image_folders, objective="refocus", **changes),
            tmp_path / name,
            progress=False,
        )
        kept[name] = (
            results["chosen_share"],
            load_file(tmp_path / name / "model" / "model.safetensors"),
        )
    assert [share for share, _ in kept.values()] == [0.5, 0.5, 1.0]
    start, weight = load_file(model_folder / "model.safetensors"), "blocks.0.attn.qkv.weight"
    torch.testing.assert_close(kept["own"][1][weight], (start[weight] + kept["all"][1][weight]) / 2)
    with pytest.raises(refocus.InputError, match="--share 0: must be above 0"):
        recipe(model_folder, image_folders, share=0)


def test_only_the_last_blocks_move(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    tune.tune(
        recipe(model_folder, image_folders, last_blocks=1, select="last"),
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


def test_lora_moves_the_blocks_by_its_rank_and_is_merged(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    tune.tune(
        recipe(model_folder, image_folders, lora=2, select="last", lr=1e-2),
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


def test_the_last_epoch_can_be_kept(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    results = tune.tune(
        recipe(model_folder, image_folders, select="last", epochs=3),
        tmp_path / "run",
        progress=False,
    )
    assert results["best_epoch"] == 2
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["model"]
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.equal(last[name], kept[name]) for name in kept)


def test_the_papers_preprocessing(tiny: Build) -> None:
    """A grey picture of 191/255 becomes (0.749 - 0.5) / 0.5 for every model."""
    model = tiny()
    model.pretrained_cfg.update(mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1))
    image, mask = (
        Image.new("RGB", (64, 48), (191, 191, 191)),
        tv_tensors.Mask(torch.ones(1, 48, 64)),
    )
    for train in (True, False):
        pixels, _ = joint_transform(model, train=train, protocol="paper")(image, mask)
        torch.testing.assert_close(
            pixels.as_subclass(torch.Tensor), torch.full((3, 32, 32), (191 / 255 - 0.5) / 0.5)
        )
    own, _ = joint_transform(model, train=False)(image, mask)
    assert own[0].mean() == pytest.approx((191 / 255 - 0.1) / 0.3, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": "fast"}, "--lr fast: must be a number, such as 2e-6, or auto"),
        ({"lr_range": (1e-5, 1e-6)}, "--lr-range"),
        ({"lora": 0}, "--lora 0: must be at least 1"),
        ({"lora": 2, "last_blocks": 1}, "--lora: freezes"),
        ({"select": "first"}, "--select first: must be best or last"),
        ({"protocol": "mine"}, "--protocol mine: must be standard or paper"),
    ],
)
def test_bad_options_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(refocus.InputError, match=message):
        Recipe(model="m", images="i", masks="k", **given)


def test_a_preset_fills_in_what_the_command_leaves_open(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    places = [
        "--model",
        model_folder,
        "--images",
        images,
        "--masks",
        masks,
        "--out",
        tmp_path / "run",
    ]
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


def test_sufficient_subsets_are_sufficient_and_small(tiny: Build) -> None:
    """A model that looks at one corner: that corner alone suffices, and a class it never answers is
    not reached.
    """

    class Corner(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen = images[:, 0, :4, :4].sum((1, 2))
            return torch.stack([seen, torch.zeros_like(seen), torch.full_like(seen, -50.0)], 1)

    images = torch.ones(2, 3, 16, 16)
    found = sufficient_subsets(Corner(), images, torch.tensor([0, 2]), rounds=64)
    assert found.found.tolist() == [True, False]
    assert found.confidence[0] >= CONFIDENCE
    assert found.pixels[0, :4, :4].sum() == found.pixels[0].sum() <= 8
    again = Corner()(images[:1] * found.pixels[:1, None]).softmax(1)[0, 0]
    assert again.item() == pytest.approx(found.confidence[0].item())
