"""transformers' image classifiers: from the hub or a folder, with the preprocessing and class names that they carry."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import nn

from refocus.errors import InputError, first_line
from refocus.families import FAMILIES

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as timm names them


def library() -> Any:
    """The module transformers, or how to get it."""
    try:
        import transformers
    except ImportError as error:
        raise InputError("--model hf:...: needs transformers; install it with pip install 'refocus-vit[hf]'") from error
    return transformers


def load_name(name: str, *, pretrained: bool) -> nn.Module:
    """`hf:ID`: fetched from the hub, or from its local cache."""
    return _load(name, f"hf:{name}", pretrained=pretrained)


def load_folder(folder: Path, *, pretrained: bool) -> nn.Module:
    return _load(str(folder), str(folder), pretrained=pretrained)


def _load(place: str, shown: str, *, pretrained: bool) -> nn.Module:
    transformers = library()
    config = fetch(shown, lambda: transformers.AutoConfig.from_pretrained(place))
    kind = (config.architectures or [type(config).__name__])[0]
    legal = [name for row in FAMILIES.values() if row.library == "transformers" for name in row.classes if name != "ZeroShot"]
    if kind in ("CLIPModel", "SiglipModel"):
        raise InputError(f"--model {shown}: {kind} has no head for classes; `refocus zero-shot` makes one from their names")
    if kind not in legal:
        raise InputError(f"--model {shown}: {kind} is not supported; legal are {', '.join(legal)} (`refocus models`)")
    made_by = getattr(transformers, kind)
    model = weights(shown, made_by, place) if pretrained else made_by(config)
    processor = fetch(shown, lambda: transformers.AutoImageProcessor.from_pretrained(place, use_fast=False))
    return described(model, processor, _names(config))


def weights(shown: str, kind: Any, place: str) -> Any:
    """Safetensors alone are read, and every weight must be there: a head that was made up would answer at random."""
    logging.getLogger("transformers").setLevel(logging.ERROR)  # what it would warn of is an error below
    model, report = fetch(shown, lambda: kind.from_pretrained(place, use_safetensors=True, output_loading_info=True))
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report.get("mismatched_keys", ()))
    if missing:
        raise InputError(f"--model {shown}: {len(missing)} weights are missing or of another shape, {missing[0]} first")
    return model


def fetch(shown: str, get: Any) -> Any:
    try:
        return get()
    except Exception as error:  # what a failed download or a broken folder raises differs by version
        raise InputError(
            f"--model {shown}: cannot be loaded ({first_line(error)}); without access to the hub give a folder that "
            "save_pretrained wrote, with its preprocessor_config.json and model.safetensors"
        ) from error


def described(model: Any, processor: Any, names: list[str] | None) -> Any:
    """The model with its processor's settings in timm's words."""
    model.image_processor = processor
    model.pretrained_cfg = preprocessing(processor) | {"label_names": names, "num_classes": len(names or ()) or None}
    return model


def preprocessing(processor: Any) -> dict[str, Any]:
    """A processor's resizing, cropping and normalization as timm names them.

    Raises:
        InputError: it does something else to the pixels, and maps would be of images that the model never saw.
    """
    if not getattr(processor, "do_normalize", True) or abs(getattr(processor, "rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        raise InputError("--model: its image processor does not scale to [0, 1] and normalize, which is not supported")
    size: dict[str, Any] = dict(processor.size)
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
    resized = (size["shortest_edge"],) * 2 if "shortest_edge" in size else (size["height"], size["width"])
    final = (crop["height"], crop["width"]) if crop else resized
    if crop is None and "shortest_edge" in size:
        raise InputError("--model: its image processor keeps the aspect ratio and does not crop, so its inputs have no common size")
    return {
        "input_size": (3, *final),
        "crop_pct": final[0] / resized[0],
        "crop_mode": "center" if "shortest_edge" in size else "squash",
        "interpolation": _RESAMPLE.get(int(processor.resample), "bicubic"),
        "mean": tuple(processor.image_mean),
        "std": tuple(processor.image_std),
    }


def _names(config: Any) -> list[str] | None:
    """Class names by index; None where they are transformers' own LABEL_0, LABEL_1, ..."""
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="1TB")
    if hasattr(model, "image_processor"):
        model.image_processor.save_pretrained(folder)
