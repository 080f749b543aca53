"""What a model folder says of itself is checked before it is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refocus import InputError, load


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
        ("pretrained_cfg.crop_mode", 3, "its crop_mode"),
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
