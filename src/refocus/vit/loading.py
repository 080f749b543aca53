"""Load and save Vision Transformers of any library; the model carries its own preprocessing and
class names.

A loaded model is the library's plain module, so everything that works on those works on it. It
carries a `pretrained_cfg` as timm's models do, where its preprocessing
(`timm.data.resolve_model_data_config(model)`) and its class names stand.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from torch import nn

from refocus.errors import InputError
from refocus.vit import own_models, timm_models, torchvision_models, transformers_models, zero_shot
from refocus.vit.families import family, unwrap

_LOADED_FROM = (
    "refocus_source"  # attribute on a loaded model, for run records; not part of its state_dict
)
_FILES = {"config.json", "model.safetensors", "preprocessor_config.json", zero_shot.HEAD}


def load(
    ref: str | Path, *, pretrained: bool = True, device: str | torch.device = "cpu"
) -> nn.Module:
    """A ViT classifier in eval mode.

    Args:
        ref: a timm name ("vit_small_patch16_224"; weights come from the hub or its local cache),
            "hf:ID" (transformers), "torchvision:NAME" or "torchvision:NAME.WEIGHTS",
            "py:MODULE:FUNCTION@FOLDER" (your own, docs/extending.md), or a folder that timm
            (`local-dir:FOLDER`), transformers (`from_pretrained(FOLDER)`) or `save` wrote.
        pretrained: False gives random weights; names of timm and torchvision then need no network
            (for tests).
        device: where to put it.

    Raises:
        InputError: unknown name, no such folder, unusable weights, an unsupported architecture, or
            no way to the hub.
    """
    ref = str(ref).removeprefix("local-dir:")
    folder = Path(ref.removeprefix("hf:"))
    try:
        folder = folder.expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError):  # too long for a name, or the home of nobody
        is_folder = False
    library, _, name = ref.partition(":")
    if is_folder:
        model = _load_folder(folder, pretrained=pretrained)
    elif library == "hf":
        model = transformers_models.load_name(name, pretrained=pretrained)
    elif library == "torchvision":
        model = torchvision_models.load_name(name, pretrained=pretrained)
    elif library == "py":
        model = own_models.load(name, pretrained=pretrained)
    elif "/" in ref or ref.startswith("."):
        raise InputError(
            f"‹model› {ref}: no such folder; give a timm name, hf:ID, torchvision:NAME or a folder "
            "with model.safetensors"
        )
    else:
        model = timm_models.load_name(ref, pretrained=pretrained)
    setattr(model, _LOADED_FROM, str(folder.resolve()) if is_folder else ref)
    return model.eval().to(device)


def pick_device(name: str) -> torch.device:
    """The device for a name; auto takes CUDA, then MPS, then the CPU.

    Of several processes each takes a GPU of its own.
    """
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = next(d for d in ("cuda", "mps", "cpu") if usable[d])
    if not usable.get(name):
        raise InputError(
            f"‹device› {name}: not usable here; legal are auto, "
            f"{', '.join(d for d in usable if usable[d])}"
        )
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if name == "cuda"
        else torch.device(name)
    )


def source(model: nn.Module) -> str:
    """What `load` was called with (a resolved path for a folder), or the class name of a model it
    did not load.
    """
    return getattr(model, _LOADED_FROM, type(model).__name__)


def _load_folder(folder: Path, *, pretrained: bool) -> nn.Module:
    """Whose folder it is, its config.json says."""
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise InputError(
                f"‹model› {folder}: {name} is missing; a model folder holds config.json and "
                "model.safetensors"
            )
    try:
        config = json.loads((folder / "config.json").read_text())
        kinds = [
            key for key in ("architecture", "model_type", "torchvision", "own") if key in config
        ]
    except (ValueError, TypeError) as error:
        raise InputError(
            f"‹model› {folder / 'config.json'}: not a model configuration ({error!r})"
        ) from error
    if (folder / zero_shot.HEAD).is_file():
        return zero_shot.load_folder(folder, pretrained=pretrained)
    if "architecture" in kinds:
        return timm_models.load_folder(folder, config, pretrained=pretrained)
    if "model_type" in kinds:
        return transformers_models.load_folder(folder, pretrained=pretrained)
    if "torchvision" in kinds:
        return torchvision_models.load_folder(folder, config, pretrained=pretrained)
    if "own" in kinds:
        raise InputError(
            f"‹model› {folder}: made by code of your own; name it: ‹model› "
            f"py:MODULE:FUNCTION@{folder}"
        )
    raise InputError(
        f"‹model› {folder / 'config.json'}: not a model configuration of timm, transformers or "
        "refocus"
    )


def preprocessing(model: nn.Module) -> dict[str, Any]:
    """The model's own input size, interpolation, mean, std and crop share, as timm resolves
    them.
    """
    return {
        k: tuple(v) if isinstance(v, list) else v
        for k, v in resolve_model_data_config(model).items()
    }


def head_size(model: nn.Module) -> int | None:
    """Outputs of the classifier head; None where a model of the user's own does not say."""
    inner: Any = unwrap(model)
    if hasattr(inner, "num_classes"):
        return int(inner.num_classes)
    return int(inner.config.num_labels) if hasattr(inner, "config") else None


def class_count(model: nn.Module) -> int:
    """Outputs of the classifier head.

    Raises:
        InputError: a model of the user's own that does not say.
    """
    count = head_size(model)
    if count is None:
        raise InputError(
            f"{type(model).__name__}: does not say how many classes it has; give it an attribute "
            "num_classes"
        )
    return count


def class_names(model: nn.Module) -> list[str] | None:
    """Names by class index: from the checkpoint, else timm's table for ImageNet models; None where
    there are none.
    """
    if names := _label_names(model):
        return names
    if subset := _imagenet(model):
        return [subset.index_to_description(i) for i in range(class_count(model))]
    return None


def folder_names(model: nn.Module) -> list[str] | None:
    """What the class folders of a test set are called, by class index: WordNet ids for ImageNet
    models, else the class names.
    """
    subset = _imagenet(model)
    return _label_names(model) or (list(subset.label_names()) if subset else None)


def _label_names(model: nn.Module) -> list[str] | None:
    """The checkpoint's own names; None also where they are of another head, as timm leaves them
    after `reset_classifier`.
    """
    names = (getattr(model, "pretrained_cfg", {}) or {}).get("label_names") or []
    names = [names[k] for k in sorted(names, key=int)] if isinstance(names, dict) else list(names)
    return names if names and len(names) == class_count(model) else None


def _imagenet(model: nn.Module) -> ImageNetInfo | None:
    subset = infer_imagenet_subset(model)
    return ImageNetInfo(subset) if subset else None


def save(model: nn.Module, folder: str | Path) -> None:
    """Write `config.json` + `model.safetensors` as the model's own library reads them; an existing
    model is replaced.

    timm: `timm.create_model("local-dir:FOLDER", pretrained=True)`. transformers:
        `from_pretrained(FOLDER)`, of a zero-shot model the image tower. torchvision:
        `VisionTransformer(**config["torchvision"])` and `load_state_dict`.

    Raises:
        InputError: the folder holds anything else.
    """
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= _FILES):
        raise InputError(
            f"save {folder}: holds something else than a model and is not overwritten; name a new "
            "folder"
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    names = _label_names(model)
    row = family(model)
    if isinstance(model, zero_shot.ZeroShot):
        zero_shot.save(model, partial)
    elif row is None:
        own_models.save(model, partial)
    elif row[1].library == "transformers":
        transformers_models.save(model, partial)
    elif row[1].library == "torchvision":
        torchvision_models.save(model, partial, names)
    else:
        timm_models.save(model, partial, names)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def class_folder_names(model: nn.Module) -> list[str]:
    """Class folder names, which are unique (ImageNet's descriptions are not)."""
    return folder_names(model) or [str(i) for i in range(class_count(model))]


Models = dict[str, nn.Module]  # "model", and "against" where there is one before


def load_models(model: str, against: str | None, device: torch.device) -> Models:
    """The model and the one before, which must know the same classes."""
    models = {"model": load(model, device=device)}
    if against is not None:
        try:
            models["against"] = load(against, device=device)
        except InputError as error:
            raise error.renamed("model", "against") from error
        classes = {which: folder_names(network) for which, network in models.items()}
        if (
            classes["model"]
            and classes["against"]
            and set(classes["model"]) != set(classes["against"])
        ):
            raise InputError(f"‹against› {against}: knows other classes than ‹model› {model}")
        if class_count(models["model"]) != class_count(models["against"]):
            raise InputError(
                f"‹against› {against}: has {class_count(models['against'])} classes, ‹model› "
                f"{class_count(models['model'])}"
            )
    return models


def names_of(model: nn.Module) -> list[str]:
    """Readable class names."""
    return class_names(model) or [str(i) for i in range(class_count(model))]
