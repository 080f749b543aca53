"""Loading and saving: plain timm must read what we write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import refocus
from refocus import references
from refocus.vit import classes, loading
from tests.makers import Build


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"img_size": (16, 40)},
        {"reg_tokens": 4, "init_values": 0.1},
        {"class_token": False, "global_pool": "avg"},
    ],
)
def test_plain_timm_reads_what_we_save(
    tiny: Build, tmp_path: Path, args: dict[str, object]
) -> None:
    model = tiny(**args)
    images = torch.randn(2, 3, *model.patch_embed.img_size)
    refocus.save(model, tmp_path / "saved")
    again = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(again(images), model(images))
        assert torch.equal(refocus.load(tmp_path / "saved")(images), model(images))
    assert classes.class_names(again) == classes.class_names(model) == ["ant", "bee", "cat", "dog"]
    assert loading.preprocessing(again) == loading.preprocessing(model)


def test_the_shared_models_load_and_survive_saving(shared: Path, tmp_path: Path) -> None:
    model = refocus.load(shared / "models" / "vit_small_planted")
    assert classes.class_names(model)[:2] == ["accordion", "butterfly"]
    refocus.save(model, tmp_path / "saved")
    images = torch.randn(1, 3, 168, 168)
    with torch.inference_mode():
        assert torch.equal(
            timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()(images),
            model(images),
        )


def test_imagenet_models_know_wordnet_ids_and_descriptions() -> None:
    model = refocus.load("vit_tiny_patch16_224", pretrained=False)
    assert classes.folder_names(model)[0] == "n01440764"
    assert "tench" in classes.class_names(model)[0]


def test_saving_replaces_a_model_and_nothing_else(tiny: Build, tmp_path: Path) -> None:
    for _ in range(2):
        refocus.save(tiny(), tmp_path / "saved")
    assert sorted(p.name for p in (tmp_path).rglob("*") if p.is_file()) == [
        "config.json",
        "model.safetensors",
    ]
    (tmp_path / "saved" / "thesis.txt").touch()
    with pytest.raises(refocus.InputError, match="holds something other than a model"):
        refocus.save(tiny(), tmp_path / "saved")
    assert (tmp_path / "saved" / "thesis.txt").exists()


def _activation(model: Any) -> None:
    model.blocks[1].mlp.act = nn.ReLU()


def _pooling(model: Any) -> None:
    model.pool_include_prefix = True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_activation, r"its blocks.1.mlp.act is ReLU\(\), and read from a folder it would be GELU"),
        (_pooling, "its pool_include_prefix is True, and read from a folder it would be False"),
    ],
)
def test_what_timm_would_build_otherwise_is_not_saved(
    tiny: Build, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    model = tiny()
    refocus.save(model, tmp_path / "a")
    change(model)
    with pytest.raises(refocus.InputError, match=message):
        refocus.save(model, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_names_of_another_head_are_not_used(tiny: Build) -> None:
    model = tiny()
    model.reset_classifier(7)  # timm leaves the four label names behind
    assert classes.class_names(model) is None
    assert classes.folder_names(model) is None


def test_a_model_without_a_head_is_refused(tiny: Build, image_folders: tuple[Path, Path]) -> None:
    model = tiny(num_classes=0)
    with pytest.raises(refocus.InputError, match="no classifier head"):
        refocus.explain(model, torch.zeros(1, 3, 32, 32))
    with pytest.raises(refocus.InputError, match="no classifier head"):
        refocus.evaluate(model, image_folders[0])


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("vit_smal_patch16_224", r"did you mean vit_small_patch16_224"),
        (
            "vit_small_patch16_224.foo",
            r"no such weights; choose one of vit_small_patch16_224, vit_small_patch16_224\.augreg",
        ),
        ("no/such/folder", "no such folder"),
        ("swin_tiny_patch4_window7_224", r"windowed attention.*use a plain Vision Transformer"),
        ("resnet50", "convolutions"),
    ],
)
def test_unusable_references_are_named(ref: str, message: str) -> None:
    with pytest.raises(refocus.InputError, match=message):
        refocus.load(ref)


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_keywords: object) -> None:
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    said = r"(couldn't connect|does not answer).*save_for_hf"  # with a hub, and without
    with pytest.raises(refocus.InputError, match=said):
        refocus.load("vit_tiny_patch16_224")


def test_broken_folders(model_folder: Path) -> None:
    weights = model_folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(refocus.InputError, match="cannot be loaded"):
        refocus.load(model_folder)
    weights.unlink()
    with pytest.raises(refocus.InputError, match=r"model\.safetensors is missing"):
        refocus.load(model_folder)
    weights.write_bytes(content)
    config = json.loads((model_folder / "config.json").read_text())
    (model_folder / "config.json").write_text(
        json.dumps({**config, "architecture": "swin_tiny_patch4_window7_224"})
    )
    with pytest.raises(refocus.InputError, match="windowed attention"):
        refocus.load(model_folder)
    for broken in ("{", "[]", "{}"):
        (model_folder / "config.json").write_text(broken)
        with pytest.raises(refocus.InputError, match="not a model configuration"):
            refocus.load(model_folder)


def test_a_pickle_in_place_of_the_weights_is_never_unpickled(model_folder: Path) -> None:
    torch.save({"x": torch.zeros(1)}, model_folder / "model.safetensors")
    with pytest.raises(refocus.InputError, match="cannot be loaded"):
        refocus.load(model_folder)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("py:tests.own_vit", r"must be py:MODULE:FUNCTION"),
        ("py:tests.no_such:build", "no_such"),
        ("py:tests.own_vit:nothing", "nothing"),
        ("py:tests.zoo:from_torchvision@nowhere", "does not hold weights"),
        ("py:tests.makers:no", "no attribute"),
        ("py:json:loads", "TypeError"),
        ("x" * 300, "neither a timm model name"),
        ("~nobody-has-this-name/x", "no such folder"),
        ("py:builtins:dict", r"returned a dict; must be a torch\.nn\.Module"),
        ("torchvision:resnet50", "choose one of vit_b_16"),
        ("torchvision:vit_b_16.BEST", "choose one of IMAGENET1K_V1"),
    ],
)
def test_unusable_references(ref: str, message: str) -> None:
    with pytest.raises(refocus.InputError, match=message):
        refocus.load(ref)


@pytest.mark.parametrize("kind", ["name", "hub", "folder", "other", "adapter"])
def test_a_model_is_known_by_its_weights_wherever_it_comes_from(
    tiny: Build, tmp_path: Path, kind: str
) -> None:
    first, second = tiny(), tiny()
    torch.nn.init.constant_(second.head.bias, 7)
    refs = {"name": "vit_tiny_patch16_224", "hub": "hf:somebody/vit", "other": "py:module:make"}
    ref = refs.get(kind, str(tmp_path / "model"))
    if kind == "adapter":  # the base lies elsewhere
        (tmp_path / "model").mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / "model" / name).write_text("one")
    known = []
    for model in (first, first, second):
        if kind == "folder":
            refocus.save(model, ref)
        known.append(loading.identity(ref, model))
    assert known[0] == known[1] != known[2]


@pytest.mark.parametrize("kind", ["name", "hub", "folder"])
def test_the_names_that_a_person_gives_are_part_of_what_a_model_is(
    tiny: Build, tmp_path: Path, kind: str
) -> None:
    model, names = tiny(), tmp_path / "names.txt"
    refocus.save(model, tmp_path / "model")
    places = {"name": "vit_tiny_patch16_224", "hub": "hf:somebody/vit"}
    known = []
    for text in ("a\nb", "a\nb", "b\na"):
        names.write_text(text)
        ref = references.with_names(places.get(kind, str(tmp_path / "model")), names=names)
        known.append(loading.identity(ref, model))
    assert known[0] == known[1] != known[2]
