"""Load and save Vision Transformers; the model carries its own preprocessing and class names.

A loaded model is a plain timm module, so everything that works on timm models works on it. Its preprocessing is
`timm.data.resolve_model_data_config(model)`; its class names come from the checkpoint, or from timm's ImageNet tables.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from torch import nn

from refocus.errors import InputError

# timm module -> why it cannot work. Relevance follows the attention from one readout row to all patches; these have none.
_REFUSED = {
    "swin_transformer": "windowed attention",
    "swin_transformer_v2": "windowed attention",
    "swin_transformer_v2_cr": "windowed attention",
    "maxxvit": "windowed attention and convolutions",
    "convnext": "convolutions, no attention",
    "resnet": "convolutions, no attention",
}
_FILES = {"config.json", "model.safetensors"}
_LOADED_FROM = "refocus_source"  # attribute on a loaded model, for run records; not part of its state_dict


def load(ref: str | Path, *, pretrained: bool = True, device: str | torch.device = "cpu") -> nn.Module:
    """A ViT classifier in eval mode.

    Args:
        ref: a timm name ("vit_small_patch16_224"; weights come from the hub or its local cache), or a folder in timm hub
            format (`config.json` + `model.safetensors`, as `timm.create_model("local-dir:FOLDER")` reads it).
        pretrained: False gives random weights without any hub access (for tests).
        device: where to put it.

    Raises:
        InputError: unknown name, no such folder, unusable weights, an unsupported architecture, or no way to the hub.
    """
    ref = str(ref).removeprefix("local-dir:")
    folder = Path(ref).expanduser()
    if folder.is_dir():
        model = _load_folder(folder, pretrained=pretrained)
    elif "/" in ref or ref.startswith("."):
        raise InputError(f"--model {ref}: no such folder; give a timm model name or a folder with config.json + model.safetensors")
    else:
        model = _load_name(ref, pretrained=pretrained)
    setattr(model, _LOADED_FROM, str(folder.resolve()) if folder.is_dir() else ref)
    return model.eval().to(device)


def pick_device(name: str) -> torch.device:
    """The device for a name; auto takes CUDA, then MPS, then the CPU. Of several processes each takes a GPU of its own."""
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(d for d in ("cuda", "mps", "cpu") if usable[d])
    if not usable.get(name):
        raise InputError(f"--device {name}: not usable here; legal are auto, {', '.join(d for d in usable if usable[d])}")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)


def source(model: nn.Module) -> str:
    """What `load` was called with (a resolved path for a folder), or the class name of a model it did not load."""
    return getattr(model, _LOADED_FROM, type(model).__name__)


def _load_folder(folder: Path, *, pretrained: bool) -> nn.Module:
    config, weights = folder / "config.json", folder / "model.safetensors"
    for file in (config, weights):
        if not file.is_file():
            raise InputError(f"--model {folder}: {file.name} is missing; a model folder holds config.json and model.safetensors")
    try:
        architecture = str(json.loads(config.read_text())["architecture"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--model {config}: not a timm model configuration ({error!r})") from error
    _refuse_unsupported(architecture)
    try:
        return timm.create_model(f"local-dir:{folder}", pretrained=pretrained)
    except Exception as error:  # timm and safetensors raise many kinds here; all mean that this folder cannot be used
        raise InputError(f"--model {folder}: cannot be loaded as {architecture}: {_first_line(error)}") from error


def _load_name(name: str, *, pretrained: bool) -> nn.Module:
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "`timm.list_models()` lists the names"
        raise InputError(f"--model {name}: not a timm model name nor a folder; {hint}")
    _refuse_unsupported(architecture)
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if name != architecture and name not in known:
        raise InputError(f"--model {name}: timm has no such weights; legal are {', '.join([architecture, *known])}")
    try:
        return timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # what a failed download raises differs by network and hub version
        raise InputError(
            f"--model {name}: its weights cannot be fetched from the hub ({_first_line(error)}); on a machine with access run "
            f"timm.models.save_for_hf(timm.create_model({name!r}, pretrained=True), DIR, safe_serialization=True) "
            "and give --model DIR here"
        ) from error


def _refuse_unsupported(architecture: str) -> None:
    if not timm.is_model(architecture):
        raise InputError(f"--model: timm knows no architecture {architecture!r}")
    module = timm.model_entrypoint(architecture).__module__.rsplit(".", 1)[-1]
    if module in _REFUSED:
        raise InputError(
            f"--model {architecture}: {_REFUSED[module]}, so no attention map leads from the prediction to every patch; "
            "use a plain Vision Transformer (timm's vit_* or deit_*)"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def preprocessing(model: nn.Module) -> dict[str, Any]:
    """The model's own input size, interpolation, mean, std and crop share, as timm resolves them."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in resolve_model_data_config(model).items()}


def class_count(model: nn.Module) -> int:
    """Outputs of the classifier head."""
    count: Any = model.num_classes
    return int(count)


def class_names(model: nn.Module) -> list[str] | None:
    """Names by class index: from the checkpoint, else timm's table for ImageNet models; None where there are none."""
    if names := _label_names(model):
        return names
    if subset := _imagenet(model):
        return [subset.index_to_description(i) for i in range(class_count(model))]
    return None


def folder_names(model: nn.Module) -> list[str] | None:
    """What the class folders of a test set are called, by class index: WordNet ids for ImageNet models, else the class names."""
    subset = _imagenet(model)
    return _label_names(model) or (list(subset.label_names()) if subset else None)


def _label_names(model: nn.Module) -> list[str] | None:
    """The checkpoint's own names; None also where they are of another head, as timm leaves them after `reset_classifier`."""
    names = (getattr(model, "pretrained_cfg", {}) or {}).get("label_names") or []
    names = [names[k] for k in sorted(names, key=int)] if isinstance(names, dict) else list(names)
    return names if names and len(names) == class_count(model) else None


def _imagenet(model: nn.Module) -> ImageNetInfo | None:
    subset = infer_imagenet_subset(model)
    return ImageNetInfo(subset) if subset else None


def save(model: nn.Module, folder: str | Path) -> None:
    """Write a timm hub folder (`config.json` + `model.safetensors`) that plain timm loads; an existing model is replaced.

    Raises:
        InputError: the folder holds anything else.
    """
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= _FILES):
        raise InputError(f"save {folder}: holds something else than a model and is not overwritten; name a new folder")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    names = _label_names(model)
    timm.models.save_for_hf(model, str(partial), model_config={"label_names": names} if names else None, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
