"""torchvision's Vision Transformers: by name, and in a folder of ours.

torchvision has no folder format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import VisionTransformer

from refocus.errors import InputError, first_line
from refocus.vit import parts
from refocus.vit.classes import class_count

_NAMES = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
_ARGUMENTS = ("image_size", "patch_size", "hidden_dim", "mlp_dim")


def load_name(name: str, *, pretrained: bool) -> nn.Module:
    """`torchvision:vit_b_16` with its best weights, or `torchvision:vit_b_16.IMAGENET1K_V1`.

    Random without `pretrained`.
    """
    kind, _, wanted = name.partition(".")
    if kind not in _NAMES:
        raise InputError(
            f"‹model› torchvision:{name}: choose one of {', '.join(_NAMES)}; others have no "
            "attention map to follow"
        )
    table = torchvision.models.get_model_weights(kind)
    known = [row.name for row in table]
    if wanted and wanted not in known:
        raise InputError(
            f"‹model› torchvision:{name}: no such weights; choose one of {', '.join(known)}"
        )
    chosen = table[wanted] if wanted else table.DEFAULT
    try:
        model: Any = torchvision.models.get_model(kind, image_size=chosen.meta["min_size"][0])
        if pretrained:
            model.load_state_dict(
                chosen.get_state_dict(progress=True, check_hash=True, weights_only=True)
            )
    except Exception as error:  # what a failed download raises differs
        raise InputError(
            f"‹model› torchvision:{name}: its weights cannot be fetched ({first_line(error)})"
        ) from error
    preset = chosen.transforms()
    crop, resized = preset.crop_size[0], preset.resize_size[0]
    model.pretrained_cfg = {  # class names are ImageNet's, whose folders are WordNet ids
        "input_size": (3, crop, crop),
        "crop_pct": crop / resized,
        "crop_mode": "center",
        "interpolation": preset.interpolation.value,
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "num_classes": len(chosen.meta["categories"]),
    }
    module: nn.Module = model
    return module


def load_folder(folder: Path, config: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """A model from a folder of ours, `config` as its config.json holds it."""
    try:
        model: Any = VisionTransformer(**config["torchvision"])
        if pretrained:
            model.load_state_dict(load_file(folder / "model.safetensors"))
        model.pretrained_cfg = config["pretrained_cfg"]
    # torchvision and safetensors raise many kinds here; all mean that this folder cannot be used
    except Exception as error:
        raise InputError(
            f"‹model› {folder}: cannot be loaded by torchvision: {first_line(error)}"
        ) from error
    module: nn.Module = model
    return module


def save(model: Any, folder: Path, names: list[str] | None) -> None:
    """config.json holds the arguments of torchvision's VisionTransformer."""
    if model.representation_size is not None or not isinstance(model.conv_proj, nn.Conv2d):
        raise InputError(
            f"save {folder}: a torchvision model with a representation layer or a convolutional "
            "stem cannot be saved"
        )
    arguments = {name: getattr(model, name) for name in _ARGUMENTS} | {
        "num_layers": len(model.encoder.layers),
        "num_heads": model.encoder.layers[0].num_heads,
        "num_classes": class_count(model),
    }
    parts.refuse_another(
        model,
        lambda: VisionTransformer(**arguments),
        "only the sizes of a torchvision model are kept",
    )
    described = {**getattr(model, "pretrained_cfg", {}), "label_names": names}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"torchvision": arguments, "pretrained_cfg": described}, indent=2),
        encoding="utf-8",
    )
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "model.safetensors",
    )
