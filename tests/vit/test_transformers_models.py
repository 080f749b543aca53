"""Models of transformers: preprocessing, labels, half precision, and what is refused."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import refocus
from refocus.data.transforms import eval_image
from refocus.vit import transformers_models
from refocus.vit.loading import preprocessing
from refocus.vit.meanwhile import quiet
from tests.zoo import build

SQUARE = {"height": 64, "width": 64}


def test_transformers_never_asks_whether_to_run_a_folders_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    config = {
        "model_type": "evil",
        "architectures": ["Evil"],
        "auto_map": {"AutoConfig": "evil.Evil"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(refocus.InputError, match="cannot be loaded"):
        refocus.load(tmp_path)
    assert not marker.exists()


def test_preprocessing_is_the_image_processors(tmp_path: Path) -> None:
    from transformers import ViTImageProcessor

    model: Any = build("ViT (transformers)", "ViT")
    image = Image.effect_noise((50, 40), 80).convert("RGB")
    centre = {
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "size": {"shortest_edge": 36},
    }
    for settings in ({"size": {"height": 32, "width": 32}}, centre):
        processor = ViTImageProcessor(
            resample=3, image_mean=[0.4] * 3, image_std=[0.2] * 3, **settings
        )
        model.pretrained_cfg = transformers_models.preprocessing(processor)
        assert preprocessing(model)["mean"] == (0.4,) * 3
        ours = eval_image(model)(image)
        assert ours.shape == (3, 32, 32)
        if "do_center_crop" not in settings:  # this processor class has no crop
            theirs = processor(image, return_tensors="pt")["pixel_values"][0]
            assert (ours - theirs).abs().mean() < 0.05


@pytest.mark.parametrize("shape", [(389, 531), (531, 389), (300, 300)])
@pytest.mark.parametrize(
    ("resized", "crop"),
    [
        ({"shortest_edge": 256}, (224, 224)),
        ({"shortest_edge": 247}, (224, 224)),  # 224 / (224 / 247) is a little less than 247
        ({"shortest_edge": 354}, (224, 224)),
        ({"shortest_edge": 224}, (224, 224)),
        ({"height": 224, "width": 224}, None),
        ({"height": 96, "width": 64}, None),
        ({"height": 463, "width": 463}, (336, 336)),
    ],
)
def test_a_photograph_becomes_the_pixels_of_the_model_s_own_processor(
    tmp_path: Path, shape: tuple[int, int], resized: dict[str, int], crop: tuple[int, int] | None
) -> None:
    transformers = pytest.importorskip("transformers")
    coarse = np.random.default_rng(0).integers(0, 255, (12, 18, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
    cut = {"height": crop[0], "width": crop[1]} if crop else None
    transformers.BitImageProcessor(
        size=resized, crop_size=cut, do_center_crop=crop is not None, resample=3
    ).save_pretrained(tmp_path)
    processor = transformers_models.image_processor("here", str(tmp_path))
    model: Any = nn.Identity()
    model.pretrained_cfg = transformers_models.preprocessing(processor)
    theirs = processor(photo, return_tensors="pt")["pixel_values"][0]
    ours = eval_image(model)(photo)
    assert ours.shape == theirs.shape
    shifts = [(down, right) for down in (0, 1) for right in (0, 1)]  # of a margin that is odd
    height, width = ours.shape[1:]
    assert any(
        torch.allclose(ours[:, : height - y, : width - x], theirs[:, y:, x:], atol=1e-4)
        for y, x in shifts
    )


@pytest.mark.parametrize(
    ("resized", "crop"),
    [
        ({"shortest_edge": 200}, (224, 224)),  # it pads
        ({"shortest_edge": 256}, (224, 160)),  # of a portrait timm takes another part
        ({"height": 256, "width": 300}, (224, 224)),
    ],
)
def test_crops_that_timm_has_no_words_for_are_refused(
    resized: dict[str, int], crop: tuple[int, int]
) -> None:
    settings = SimpleNamespace(
        size=resized,
        crop_size={"height": crop[0], "width": crop[1]},
        do_center_crop=True,
        resample=3,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    with pytest.raises(refocus.InputError, match=f"crops to {crop[1]}x{crop[0]} pixels after"):
        transformers_models.preprocessing(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_rescale": False}, "do_rescale"),
        ({"do_resize": False}, "do_resize"),
        ({"image_mean": None}, "image_mean"),
        ({"resample": 5}, "resample"),
        ({"size": {"longest_edge": 40}}, "longest_edge"),
        ({"size": {"shortest_edge": 40}}, "no common size"),
    ],
)
def test_image_processors_that_do_something_else_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    settings = {
        "size": {"height": 32, "width": 32},
        "resample": 3,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        **changes,
    }
    with pytest.raises(refocus.InputError, match=message):
        transformers_models.preprocessing(SimpleNamespace(**settings))


@pytest.mark.parametrize(
    ("kind", "settings", "refused"),
    [
        ("BitImageProcessor", {}, False),
        ("ViTImageProcessor", {}, False),
        ("DeiTImageProcessor", {"size": {"height": 73, "width": 73}}, False),
        ("ChineseCLIPImageProcessor", {"size": {"shortest_edge": 73}}, False),
        ("EfficientNetImageProcessor", {"rescale_offset": True}, True),
        ("PoolFormerImageProcessor", {"size": {"shortest_edge": 64}}, True),  # crop_pct
        ("LevitImageProcessor", {"size": {"shortest_edge": 64}}, True),  # resizes to 256 / 224
    ],
)
def test_image_processors_that_do_more_than_their_settings_say_are_refused(
    kind: str, settings: dict[str, Any], refused: bool
) -> None:
    transformers = pytest.importorskip("transformers")
    common = {"size": SQUARE, "do_center_crop": True, "crop_size": SQUARE, "resample": 3}
    common |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = getattr(transformers, kind)(**(common | settings))
    model: Any = nn.Identity()
    model.config = SimpleNamespace(image_size=64, model_type="vit")
    with (
        pytest.raises(refocus.InputError, match=r"does more than its settings.*of 255 grey levels")
        if refused
        else nullcontext()
    ):
        transformers_models.described(model, processor, None, 3)


def test_imagenets_labels_answer_to_wordnet_ids(tmp_path: Path) -> None:
    from timm.data import ImageNetInfo
    from transformers import ViTConfig, ViTForImageClassification

    table = ImageNetInfo("imagenet-1k")
    labels = {i: table.index_to_description(i) for i in range(1000)}
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "intermediate_size": 48,
    }
    plain = ViTForImageClassification(
        ViTConfig(**sizes, image_size=32, patch_size=8, id2label=labels)
    )
    plain.save_pretrained(tmp_path)
    build("ViT (transformers)", "ViT").image_processor.save_pretrained(tmp_path)
    model = refocus.load(tmp_path)
    assert refocus.vit.classes.folder_names(model)[0] == "n01440764"
    assert refocus.vit.classes.class_names(model)[0].startswith("tench")


@pytest.mark.parametrize("level", [logging.INFO, logging.CRITICAL])
def test_what_transformers_logs_is_afterwards_as_it_was(tmp_path: Path, level: int) -> None:
    refocus.save(build("ViT (transformers)", "ViT"), tmp_path / "model")
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(level)
    try:
        refocus.load(tmp_path / "model")
        assert logger.level == level
        with quiet("transformers"):
            outer = quiet("transformers")
            outer.__enter__()  # another thread's, which leaves later
            assert logger.level == max(level, logging.ERROR)
        assert logger.level == max(level, logging.ERROR)
        outer.__exit__(None, None, None)
        assert logger.level == level
    finally:
        logger.setLevel(before)


def test_half_precision_checkpoints_are_tuned_in_float32(tmp_path: Path) -> None:
    model: Any = build("ViT (transformers)", "ViT")
    refocus.save(model.bfloat16(), tmp_path / "half")
    assert {p.dtype for p in refocus.load(tmp_path / "half").parameters()} == {torch.float32}


def test_a_folder_without_a_head_or_with_pickles_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    refocus.save(build("ViT (transformers)", "ViT"), folder)
    whole = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in whole.items() if "classifier" not in k},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(refocus.InputError, match=r"2 weights are missing.*classifier"):
        refocus.load(folder)
    torch.save(whole, folder / "model.safetensors")
    with pytest.raises(refocus.InputError, match="cannot be loaded"):
        refocus.load(folder)
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "architectures": ["ViTMAEForPreTraining"]})
    )
    with pytest.raises(
        refocus.InputError,
        match=r"ViTMAEForPreTraining is not supported; choose one of ViTForImageClassification",
    ):
        refocus.load(folder)


def test_windows_and_convolutions_of_other_libraries_are_refused() -> None:
    from torchvision.models import resnet18, swin_t
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1], num_heads=[2], window_size=4
    )
    refused = {
        "windowed": (SwinForImageClassification(config), swin_t()),
        "convolutions": (resnet18(),),
        "family": (nn.Linear(2, 2),),
    }
    for reason, model in ((why, m) for why, models in refused.items() for m in models):
        with pytest.raises(refocus.InputError, match=f"{reason}.*docs/extending.md"):
            refocus.explain(model, torch.zeros(1, 3, 32, 32))
