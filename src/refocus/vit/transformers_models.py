"""transformers' image classifiers, from the hub or a folder.

With the preprocessing and class names that they carry.
"""

from __future__ import annotations

import logging
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import nn

from refocus.errors import InputError, first_line
from refocus.files import read_json, write_json
from refocus.vit import parts
from refocus.vit.attention_kinds import refuse_registered
from refocus.vit.classes import by_index, imagenet_in_order
from refocus.vit.configs import crop_share
from refocus.vit.families import FAMILIES, REFUSED
from refocus.vit.hub import asked_once
from refocus.vit.meanwhile import quiet

log = logging.getLogger("refocus")
ADAPTER = "adapter_config.json"  # in a folder that PEFT wrote
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_RESAMPLE = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}  # Pillow's numbers, as timm names them


def library() -> Any:
    """The module transformers, or how to get it."""
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            "‹model› hf:...: needs transformers; install it with pip install 'refocus-vit[hf]'"
        ) from error
    return transformers


def load_name(name: str, *, pretrained: bool) -> nn.Module:
    """`hf:ID`: fetched from the hub, or from its local cache."""
    with asked_once():
        return _load(name, f"hf:{name}", pretrained=pretrained)


def load_folder(folder: Path, *, pretrained: bool) -> nn.Module:
    """A model from a folder that `save_pretrained` wrote."""
    return _load(str(folder), str(folder), pretrained=pretrained, processor=_processor_at(folder))


def _processor_at(folder: Path) -> str:
    """Where the image processor lies.

    Raises:
        InputError: nowhere.
    """
    if place := _place_of_processor(folder):
        return str(place)
    raise InputError(
        f"‹model› {folder}: {_PROCESSORS[0]} is missing, so how images are resized and "
        "normalized is not known; copy it from the model that was trained, or write it with "
        "AutoImageProcessor.from_pretrained(BASE).save_pretrained(FOLDER)"
    )


def _place_of_processor(folder: Path) -> Path | None:
    """The folder, or the one above: a Trainer keeps it beside its checkpoint folders, if at all."""
    places = [folder, folder.parent] if folder.name.startswith("checkpoint-") else [folder]
    found = (p for p in places if any((p / name).is_file() for name in _PROCESSORS))
    return next(found, None)


def base_of(folder: Path) -> str:
    """The model that an adapter of PEFT was trained on, as its folder names it.

    Raises:
        InputError: it names none.
    """
    config = read_json(folder / ADAPTER)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        raise InputError(
            f"‹model› {folder}: an adapter whose {ADAPTER} names no base model; merge it where it "
            "was trained: model.merge_and_unload(), then save that"
        )
    return base


def take_processor(model: Any, folder: Path) -> None:
    """See images as the image processor of an adapter's folder says, where there is one.

    Raises:
        InputError: it cannot be read, or does what is not supported.
    """
    place = _place_of_processor(folder)
    if place and hasattr(model, "image_processor"):
        known = model.pretrained_cfg
        processor = image_processor(str(folder), str(place))
        described(model, processor, known.get("label_names"), known["num_classes"])


def with_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """A model with the adapter in a folder merged into its weights.

    Raises:
        InputError: PEFT is not installed, or the adapter does not fit the model.
    """
    try:
        import peft
    except ImportError as error:
        raise InputError(
            f"‹model› {folder}: an adapter needs peft; install it with pip install "
            "'refocus-vit[lora]'"
        ) from error
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"‹model› {folder}: adapter_model.safetensors is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT's own, of transformers
            warnings.filterwarnings("error", message=".*missing adapter keys")
            adapted: Any = peft.PeftModel.from_pretrained(cast(Any, model), str(folder))
            merged: nn.Module = adapted.merge_and_unload()
    except Exception as error:  # what PEFT raises differs by kind of adapter
        raise InputError(
            f"‹model› {folder}: the adapter does not fit its base ({first_line(error)})"
        ) from error
    return merged


def _load(place: str, shown: str, *, pretrained: bool, processor: str | None = None) -> nn.Module:
    transformers = library()
    config = configuration(shown, place)
    kind = (config.architectures or [type(config).__name__])[0]
    legal = [
        name
        for row in FAMILIES.values()
        if row.library == "transformers"
        for name in row.classes
        if name != "ZeroShot"
    ]
    if kind in ("CLIPModel", "SiglipModel"):
        raise InputError(
            f"‹model› {shown}: {kind} has no head for classes; `refocus zero-shot` makes one from "
            "their names"
        )
    if kind not in legal:
        why = next(
            (f" ({reason})" for start, reason in REFUSED.items() if kind.startswith(start)), ""
        )
        raise InputError(
            f"‹model› {shown}: {kind} is not supported{why}; choose one of {', '.join(legal)} "
            "(`refocus models`)"
        )
    made_by = getattr(transformers, kind)
    config._attn_implementation = "sdpa"
    model = weights(shown, made_by, place) if pretrained else made_by(config)
    names = _names(config, _label2id(place, shown), f"‹model› {shown}")
    module: nn.Module = described(
        model, image_processor(shown, processor or place), names, config.num_labels
    )
    return module


def configuration(shown: str, place: str) -> Any:
    """config.json, without any code that it may name."""
    transformers = library()
    config = fetch(
        shown, lambda: transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
    )
    if not isinstance(config.architectures, list | None):
        raise InputError(
            f"‹model› {shown}: its config.json names the architectures {config.architectures!r}; "
            "must be a list"
        )
    return config


def image_processor(shown: str, place: str) -> Any:
    """The image processor of a checkpoint."""
    transformers = library()
    how = {"use_fast": False, "trust_remote_code": False}
    with quiet("transformers"):  # of keys that it passes over; what it does is tried on a picture
        return fetch(shown, lambda: transformers.AutoImageProcessor.from_pretrained(place, **how))


def weights(shown: str, kind: Any, place: str, *, attention: str | None = "sdpa") -> Any:
    """Read safetensors alone, as float32, and insist on every weight.

    Half precision would round small steps of tuning to nothing, and a head that was made up would
    answer at random. attention: how it is computed; None: as the kind does by default.
    """
    how = {
        "use_safetensors": True,
        "trust_remote_code": False,
        "attn_implementation": attention,
        "dtype": torch.float32,
    }
    with quiet("transformers"):  # what it would warn of is an error below
        model, report = fetch(
            shown, lambda: kind.from_pretrained(place, output_loading_info=True, **how)
        )
    missing = sorted(report["missing_keys"]) + sorted(
        str(key) for key in report.get("mismatched_keys", ())
    )
    if missing:
        raise InputError(
            f"‹model› {shown}: {len(missing)} weights are missing or of another shape, "
            f"{missing[0]} first"
        )
    return model


def fetch(shown: str, get: Any) -> Any:
    """What `get` gives; what goes wrong is said in one line that names the model."""
    try:
        return get()
    except (
        Exception
    ) as error:  # what a failed download or a broken folder raises differs by version
        if "ignore_mismatched_sizes" in str(error):  # an option of transformers, and no reason
            raise InputError(
                f"‹model› {shown}: its weights are of another shape than its config.json says; "
                "often because id2label or num_labels there is for another number of classes"
            ) from error
        raise InputError(
            f"‹model› {shown}: cannot be loaded ({first_line(error)}); without access to the hub "
            "give a folder that "
            "save_pretrained wrote, with its preprocessor_config.json and model.safetensors"
        ) from error


def described(model: Any, processor: Any, names: list[str] | None, classes: int) -> Any:
    """The model with its processor's settings in timm's words."""
    model.image_processor = processor
    known = {"label_names": names, "num_classes": classes}
    model.pretrained_cfg = preprocessing(processor) | known
    _refuse_other_size(model)
    _refuse_other_pixels(model)
    return model


def _refuse_other_size(model: Any) -> None:
    """Position embeddings are for one size, but for DINOv2's, which it resizes itself."""
    config = getattr(model, "config", None) or model.tower.config
    size = getattr(getattr(config, "vision_config", config), "image_size", None)
    if size is None or config.model_type.startswith("dinov2"):
        return
    wanted = (size, size) if isinstance(size, int) else tuple(size)
    made = tuple(model.pretrained_cfg["input_size"][1:])
    if made != wanted:
        raise InputError(
            f"‹model›: its image processor makes {made[1]}x{made[0]} pixels, the model takes "
            f"{wanted[1]}x{wanted[0]}; fix the size in preprocessor_config.json"
        )


_SHAPE = (300, 420)  # height and width of a test picture


def _refuse_other_pixels(model: Any) -> None:
    """Stop at an image processor that does more than its fields say: a crop or scale of its own.

    A smooth picture goes both ways. Libraries round an odd margin differently, which is worth the
    step from one of its pixels to the next.
    """
    processor, config = model.image_processor, model.pretrained_cfg
    down, across = np.mgrid[0 : _SHAPE[0], 0 : _SHAPE[1]]
    ramps = (down / _SHAPE[0], across / _SHAPE[1], (down + across) / sum(_SHAPE))
    picture = Image.fromarray((255 * np.stack(ramps, -1)).astype(np.uint8))
    shown = f"‹model›: its image processor ({type(processor).__name__})"
    try:
        theirs = torch.as_tensor(processor(picture, return_tensors="pt")["pixel_values"][0])
    except Exception as error:  # any class of transformers may stand here
        raise InputError(f"{shown} cannot read a picture ({first_line(error)})") from error
    how = {k: v for k, v in config.items() if k not in ("label_names", "num_classes")}
    ours = create_transform(**how, is_training=False)(picture)
    if ours.shape == theirs.shape:
        std = torch.tensor(config["std"])[:, None, None]
        apart = float(((ours - theirs) * std * 255).abs().max())
        if apart <= 2 + 1.5 * 255 / min(ours.shape[1:]):
            return
        found = f"up to {apart:.0f} of 255 grey levels apart on a test picture"
    else:
        found = f"{list(theirs.shape)} in place of {list(ours.shape)}"
    raise InputError(
        f"{shown} does more than its settings for resizing, cropping, mean and std say ({found}), "
        "which is not supported; give one that does not, such as ViTImageProcessor or "
        "BitImageProcessor, with the same values"
    )


def preprocessing(processor: Any) -> dict[str, Any]:
    """A processor's resizing, cropping and normalization as timm names them.

    Raises:
        InputError: it does something else to the pixels, and maps would be of images that the model
            never saw.
    """
    off = [
        step
        for step in ("do_resize", "do_rescale", "do_normalize")
        if not getattr(processor, step, True)
    ]
    size = dict(processor.size or {})
    shown = f"‹model›: its image processor ({type(processor).__name__})"
    if off or abs(getattr(processor, "rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        raise InputError(
            f"{shown} has {', '.join(off) or 'rescale_factor'} unlike 1 / 255 and mean and std, "
            "which is not supported"
        )
    if not ({"height", "width"} <= size.keys() or size.keys() == {"shortest_edge"}):
        raise InputError(f"{shown} resizes to {size}; must be height and width, or shortest_edge")
    if processor.resample not in _RESAMPLE or not processor.image_mean or not processor.image_std:
        raise InputError(f"{shown} lacks a known resample, image_mean or image_std")
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
    if crop is None and "shortest_edge" in size:
        raise InputError(
            f"{shown} keeps the aspect ratio and does not crop, so its inputs have no common size"
        )
    resized = (
        (size["shortest_edge"],) * 2 if "shortest_edge" in size else (size["height"], size["width"])
    )
    final = (crop["height"], crop["width"]) if crop else resized
    share = crop_share(final, resized, squash="shortest_edge" not in size)
    if share is None:
        raise InputError(
            f"{shown} crops to {final[1]}x{final[0]} pixels after it resizes to {size}; must "
            "crop to no more than that, with one ratio for both sides, or to a square of a "
            "shortest_edge"
        )
    return {
        "input_size": (3, *final),
        "crop_pct": share,
        "crop_mode": "center" if "shortest_edge" in size else "squash",
        "interpolation": _RESAMPLE[processor.resample],
        "mean": tuple(processor.image_mean),
        "std": tuple(processor.image_std),
    }


def _label2id(place: str, shown: str) -> Any:
    """What config.json says; transformers forgets it where there is no id2label beside it."""
    kind = library().PretrainedConfig
    return fetch(shown, lambda: kind.get_config_dict(place))[0].get("label2id")


def _names(config: Any, label2id: Any, shown: str) -> list[str] | None:
    """Class names by index, or None.

    None where they are transformers' own LABEL_0, LABEL_1, ..., or ImageNet's in its order, whose
    class folders are called by WordNet ids (timm's tables have both).
    """
    try:
        names = by_index(config.id2label, "id2label")
    except InputError as error:
        raise InputError(f"{shown}: {error}") from error
    numbers = _numbers(label2id, shown)
    generic = [f"LABEL_{i}" for i in range(len(names))]
    if names == generic and not set(numbers) & set(generic):
        names = _by_number(numbers, len(names), shown) or generic
    _refuse_contradiction(names, numbers, shown)
    return None if imagenet_in_order(names) or names == generic else names


def _numbers(label2id: Any, shown: str) -> dict[str, int]:
    try:
        return {str(name): int(number) for name, number in dict(label2id or {}).items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"{shown}: label2id of its config.json is no table of numbers") from error


def _by_number(numbers: dict[str, int], count: int, shown: str) -> list[str]:
    """Class names where label2id alone says them."""
    table = {number: name for name, number in numbers.items()}
    if numbers and len(table) != count:
        raise InputError(
            f"{shown}: label2id of its config.json numbers {len(table)} classes, and the model has "
            f"{count} outputs; fix it, or give ‹names› with one name for each output"
        )
    try:
        return by_index(table, "label2id")
    except InputError as error:
        raise InputError(f"{shown}: {error}") from error


def _refuse_contradiction(names: list[str], numbers: dict[str, int], shown: str) -> None:
    """Stop where the two tables of a config order classes differently: one of them is wrong."""
    known = [name for name in names if name in numbers]
    for one, other in pairwise(known):
        if numbers[one] >= numbers[other]:
            raise InputError(
                f"{shown}: in id2label of its config.json {one!r} comes before {other!r}, in "
                f"label2id they are {numbers[one]} and {numbers[other]}; fix the one that is wrong"
            )


def save_network(model: Any, folder: Path) -> None:
    """Config and weights.

    Raises:
        InputError: transformers would build another network from it.
    """
    refuse_registered(model)
    parts.refuse_another(
        model, lambda: type(model)(model.config), "transformers builds it from its config alone"
    )
    model.save_pretrained(folder, max_shard_size="1TB")


def save(model: Any, folder: Path, names: list[str] | None) -> None:
    """Write a folder that `from_pretrained` reads; names: of the outputs, for its config.json.

    Raises:
        InputError: transformers would build another network from it.
    """
    save_network(model, folder)
    if names is not None:  # given later, they stand beside the config
        file = folder / "config.json"
        numbered = {str(number): name for number, name in enumerate(names)}
        labels = {"id2label": numbered, "label2id": {name: int(n) for n, name in numbered.items()}}
        write_json(file, read_json(file) | labels)
    if hasattr(model, "image_processor"):
        model.image_processor.save_pretrained(folder)
