"""What a model folder says of itself is checked before it is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage import data
from timm.data import create_transform, resolve_model_data_config

from refocus import InputError, eval_image, load, save
from tests.zoo import ZOO, build


def _changed(folder: Path, path: str, value: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    place: Any = config
    *before, last = path.split(".")
    for key in before:
        place = place[key]
    place[last] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model_args.depth", 100_000, "100000 blocks"),
        ("model_args.depth", 45, "45 blocks, but model.safetensors holds"),
        ("model_args.embed_dim", 4096, "3 blocks"),
        ("model_args.img_size", [10**5, 10**5], "patches"),
        ("model_args.num_classes", 10**12, "classes"),
        ("model_args.frobnicate", 10**30, "frobnicate"),
        ("pretrained_cfg.mean", [None, 0.5, 0.5], "its mean"),
        ("pretrained_cfg.mean", [0.5], "its mean"),
        ("pretrained_cfg.std", [0, 0, 0], "its std"),
        ("pretrained_cfg.std", [0.5, 0.5, -0.5], "its std"),
        ("pretrained_cfg.crop_pct", 1e-9, "its crop_pct"),
        ("pretrained_cfg.crop_pct", "all", "its crop_pct"),
        ("pretrained_cfg.interpolation", "sharpest", "its interpolation"),
        ("pretrained_cfg.interpolation", "random", "its interpolation"),  # timm's, for training
        ("pretrained_cfg.crop_mode", 3, "its crop_mode"),
        ("pretrained_cfg.crop_mode", "border", "its crop_mode is 'border'; must be center, squash"),
        ("label_names", [1, 2, 3, 4], "its label_names"),
        ("label_names", {"a": "ant"}, "its label_names"),
    ],
)
def test_a_size_or_a_value_that_cannot_be_meant(
    path: str, value: Any, said: str, model_folder: Path
) -> None:
    with pytest.raises(InputError, match=said):
        load(_changed(model_folder, path, value))


@pytest.mark.parametrize("content", ["[]", "7", "null", "{", "[" * 10_000])
def test_a_configuration_that_is_no_object(content: str, model_folder: Path) -> None:
    (model_folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        load(model_folder)


BYTES = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


@pytest.mark.parametrize("changed", [BYTES, {"std": BYTES["std"]}, {"mean": [127.5] * 3}])
def test_a_mean_for_pixels_of_0_to_255_is_said(
    changed: dict[str, Any], model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """timm applies it to pixels of 0 to 1, and so do we."""
    for key, value in changed.items():
        _changed(model_folder, f"pretrained_cfg.{key}", value)
    model = load(model_folder)
    assert "are for pixels of 0 to 255, and timm takes them for 0 to 1, as here" in caplog.text
    theirs = create_transform(**resolve_model_data_config(model))
    photo = Image.fromarray(data.astronaut())
    torch.testing.assert_close(eval_image(model)(photo), theirs(photo), atol=0.02, rtol=0)


@pytest.mark.parametrize("std", [(1.0,) * 3, (0.229, 0.224, 0.225)])
def test_a_mean_for_pixels_of_0_to_1_is_not(
    std: tuple[float, ...], model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(_changed(model_folder, "pretrained_cfg.std", std))
    assert "255" not in caplog.text


def test_a_mean_that_no_other_library_reads_so_is_refused(tmp_path: Path) -> None:
    model: Any = build("ViT (torchvision)", "")
    model.pretrained_cfg |= BYTES
    save(model, tmp_path / "m")
    with pytest.raises(InputError, match="must be for pixels of 0 to 1: divide them by 255"):
        load(tmp_path / "m")


def test_what_transformers_makes_of_such_a_mean(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transformers = pytest.importorskip("transformers")
    model: Any = build("ViT (transformers)", *list(ZOO["ViT (transformers)"])[:1])
    save(model, tmp_path / "m")
    file = tmp_path / "m" / "preprocessor_config.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "image_mean": BYTES["mean"], "image_std": BYTES["std"]}))
    loaded = load(tmp_path / "m")
    assert "and transformers takes them for 0 to 1, as here" in caplog.text
    photo = Image.fromarray(data.astronaut())
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "m", use_fast=False)
    theirs = processor(photo, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(eval_image(loaded)(photo), theirs, atol=0.01, rtol=0)
