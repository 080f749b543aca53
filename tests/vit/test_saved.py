"""What a saved model gives back, and what cannot be saved, in the library that it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from refocus import InputError, attention_maps, explain, export_onnx, load, save
from refocus.relevance.answers import logits_of
from refocus.vit import parts
from refocus.vit.classes import label_names
from tests.makers import Build
from tests.zoo import ZOO, build, from_torchvision, images_for

_GIVEN = ["w", "x", "y", "z"]


@pytest.mark.parametrize(
    "family", ["ViT (transformers)", "CLIP (transformers)", "SigLIP (transformers)"]
)
def test_names_that_were_given_to_a_model_of_transformers_are_saved(
    family: str, tmp_path: Path
) -> None:
    model = build(family, next(iter(ZOO[family])))
    save(model, tmp_path / "carried")
    named = load(tmp_path / "carried", names=_GIVEN)
    save(named, tmp_path / "named")
    assert label_names(load(tmp_path / "named")) == _GIVEN
    assert label_names(load(tmp_path / "carried")) != _GIVEN
    images = images_for(named)
    with torch.inference_mode():
        assert torch.equal(logits_of(load(tmp_path / "named"), images), logits_of(named, images))


def _relu(model: Any) -> None:
    for name, part in list(model.named_modules()):
        if "GELU" in type(part).__name__:
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, nn.ReLU())


def test_a_part_that_was_exchanged_is_not_lost_in_silence(tmp_path: Path) -> None:
    family = "ViT (transformers)"
    one = build(family, next(iter(ZOO[family])))
    _relu(one)
    with pytest.raises(InputError, match=r"is ReLU.*transformers builds it from its config alone"):
        save(one, tmp_path / "one")
    two: Any = from_torchvision()
    two.encoder.layers[0].mlp[1] = nn.ReLU()
    with pytest.raises(
        InputError, match=r"is ReLU.*only the sizes of a torchvision model are kept"
    ):
        save(two, tmp_path / "two")
    three: Any = from_torchvision()
    three.heads = nn.Linear(three.hidden_dim, 7)
    with pytest.raises(InputError, match=r"its heads is Linear\(.*=7.*only the sizes of a torch"):
        save(three, tmp_path / "three")
    assert not list(tmp_path.iterdir())


def test_an_export_whose_answers_are_no_numbers_is_refused(tiny: Build, tmp_path: Path) -> None:
    model: Any = tiny().train()
    with torch.no_grad():
        model.head.bias[1] = torch.nan
    with pytest.raises(InputError, match="differ from the model's by nan"):
        export_onnx(model, tmp_path / "model.onnx")
    assert model.training
    assert not list(tmp_path.iterdir())


def test_a_zero_shot_classifier_with_an_exchanged_part_is_refused(tmp_path: Path) -> None:
    family = "zero-shot CLIP, SigLIP"
    model: Any = build(family, next(iter(ZOO[family])))
    save(model, tmp_path / "whole")
    _relu(model.tower)
    with pytest.raises(InputError, match=r"is ReLU.*read from a folder"):
        save(model, tmp_path / "other")


def test_a_model_that_is_not_built_without_memory_is_saved_unseen() -> None:
    def build() -> nn.Module:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    parts.refuse_another(nn.ReLU(), build, "")
    with pytest.raises(InputError, match="is ReLU"):
        parts.refuse_another(nn.Sequential(nn.ReLU()), lambda: nn.Sequential(nn.GELU()), "")


_CHANGED: dict[str, tuple[str, str, str, Any]] = {  # family, variant, part, what is set on it
    "scale": ("ViT", "class token", "blocks.0.attn", {"scale": 0.5}),
    "heads": ("ViT", "class token", "blocks.1.attn", {"num_heads": 6, "head_dim": 4}),
    "heads of EVA": ("EVA", "EVA-02", "blocks.0.attn", {"num_heads": 6}),
    "heads of BEiT": ("BEiT", "class token", "blocks.0.attn", {"scale": 0.5}),
    "beside the MLP": ("ViT", "parallel attention and MLP", "blocks.0", {"scale": 0.5}),
    "transformers": (
        *("ViT (transformers)", "ViT", "vit.layers.0.attention"),
        {"scaling": 0.5},
    ),
}


@pytest.mark.parametrize("case", _CHANGED)
def test_attention_that_splits_or_scales_its_heads_otherwise_is_not_lost(
    case: str, tmp_path: Path
) -> None:
    family, variant, name, settings = _CHANGED[case]
    model = build(family, variant)
    save(model, tmp_path / "whole")
    for key, value in settings.items():
        assert hasattr(model.get_submodule(name), key)
        setattr(model.get_submodule(name), key, value)
    first = next(iter(settings))
    with pytest.raises(InputError, match=rf"model: its {name}.{first} is .*would be"):
        save(model, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_attention_that_somebody_registered_is_neither_explained_nor_saved_as_another(
    tmp_path: Path,
) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def sharp(module: Any, query: Any, *given: Any, **named: Any) -> Any:
        return sdpa_attention_forward(module, query * 3, *given, **named)

    transformers.AttentionInterface.register("sharp", sharp)
    model: Any = build("ViT (transformers)", "ViT")
    images, message = images_for(model), "its attention is computed by 'sharp'"
    model.set_attn_implementation("sharp")
    with pytest.raises(InputError, match=message):
        explain(model, images)
    with pytest.raises(InputError, match=message), attention_maps(model):
        pass
    with pytest.raises(InputError, match=message):
        save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    for kind in ("eager", "sdpa"):
        model.set_attn_implementation(kind)
        with torch.no_grad():
            torch.testing.assert_close(explain(model, images).logits, model(images).logits)
        assert model.config._attn_implementation == kind
