"""What a model folder says about itself, checked before it is believed.

A folder is data that somebody else may have written: numbers in its config.json decide how much
memory is taken and what is done to every pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from refocus.errors import InputError, first_line
from refocus.files import read_json

_SIDE = 1 << 14  # pixels; no Vision Transformer reads more
_CROP = (0.05, 2.0)  # a smaller share would enlarge each image twentyfold
_RANGE = 1e4  # of mean and std
_MOST = 1 << 26  # bytes of a config.json
_HUGE = 1 << 20  # smaller numbers are no danger of themselves
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
_CROPS = ("center", "squash")  # "border" pads, and masks would be of another part of the image


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        InputError: no JSON object, or one that asks for a model far larger than its weights.
    """
    file = folder / "config.json"
    try:
        config = read_json(file, most=_MOST)
    except InputError as error:
        raise InputError(f"‹model› {folder}: not a model configuration: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"‹model› {file}: not a model configuration; must be a JSON object")
    tensors = _tensors(folder / "model.safetensors")
    for part in (config, *(config.get(k) for k in ("model_args", "vision_config", "torchvision"))):
        if isinstance(part, dict):
            _refuse_oversized(part, folder / "model.safetensors", tensors, f"‹model› {file}")
    return config


def _refuse_oversized(sizes: dict[str, Any], weights: Path, tensors: int, shown: str) -> None:
    """A model of these sizes must fit into its weights; else building it fills the memory."""
    room = weights.stat().st_size

    def size(*names: str) -> int:
        return max((_whole(sizes.get(name)) for name in names), default=0)

    depth = size("depth", "num_hidden_layers", "num_layers")
    width = size("embed_dim", "hidden_size", "hidden_dim")
    patches = size("img_size", "image_size") // max(1, size("patch_size"))
    needed = {
        f"{depth} blocks": depth and max(depth, depth * 4 * width**2),  # bytes, at least
        f"{patches} x {patches} patches": patches**2,
        f"{size('num_classes')} classes": size("num_classes") * max(1, width),
        **{f"{name} = {number}": number for name, number in _huge(sizes)},
    }
    if wrong := next((what for what, least in needed.items() if least > room), None):
        raise InputError(
            f"{shown}: {wrong}, but {weights.name} has {room} bytes and cannot hold such a model"
        )
    if depth > tensors:
        raise InputError(f"{shown}: {depth} blocks, but {weights.name} holds {tensors} tensors")


def _whole(value: Any) -> int:
    """A whole number, the largest of a list of them, or 0."""
    if isinstance(value, list):
        return max((_whole(one) for one in value), default=0)
    return value if isinstance(value, int) else 0


def _huge(sizes: dict[str, Any]) -> Iterator[tuple[str, int]]:
    numbers = ((name, _whole(value)) for name, value in sizes.items())
    return ((name, number) for name, number in numbers if number > _HUGE)


def _tensors(weights: Path) -> int:
    """How many tensors a safetensors file names."""
    try:
        with safe_open(weights, "pt") as file:
            return len(file.keys())
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"‹model› {weights}: cannot be loaded as safetensors ({first_line(error)})"
        ) from error


def crop_share(crop: Sequence[int], resized: Sequence[int], *, squash: bool) -> float | None:
    """timm's `crop_pct` for a crop out of an image that is resized first; None where it has none.

    timm divides each side of the crop by it and rounds down, which must give `resized` again.

    Args:
        crop: height and width that the model takes.
        resized: height and width of the resized image; without `squash` both are its shorter side.
        squash: whether the aspect ratio is given up.
    """
    pads = any(side > before for side, before in zip(crop, resized, strict=True))
    if pads or not (squash or crop[0] == crop[1]):
        return None
    for share in (crop[0] / resized[0], crop[0] / (resized[0] + 0.5)):
        if [math.floor(side / share) for side in crop] == list(resized):
            return share
    return None


def refuse_unusable(model: nn.Module, shown: str, *, renamed: bool = False) -> None:
    """Stop where a model's own preprocessing or class names cannot be meant.

    renamed: names follow from elsewhere, so those in the checkpoint do not count.

    Raises:
        InputError: names `shown`, the key and what is legal.
    """
    said = getattr(model, "pretrained_cfg", None) or {}
    if not isinstance(said, dict):
        raise InputError(f"{shown}: its pretrained_cfg is a {type(said).__name__}, not an object")
    for key, (legal, words) in _LEGAL.items():
        if renamed and key == "label_names":
            continue
        if said.get(key) is not None and not legal(said[key]):
            raise InputError(f"{shown}: its {key} is {_short(said[key])}; must be {words}")


def counts_in_bytes(said: Mapping[str, Any]) -> bool:
    """Whether mean and std of a `pretrained_cfg` seem to be for pixels of 0 to 255."""
    return any(max(said.get(key) or (0,)) > 1 for key in ("mean", "std"))


def _size(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and value[0] == 3
        and all(isinstance(side, int) and 0 < side <= _SIDE for side in value)
    )


def _three(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(_real(one) and abs(one) < _RANGE for one in value)
    )


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _names(value: Any) -> bool:
    if isinstance(value, dict):
        keys = sorted(int(key) for key in value if str(key).isdecimal())
        counted = any(keys == list(range(first, first + len(value))) for first in (0, 1))
        return counted and all(isinstance(name, str) for name in value.values())
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


_LEGAL = {  # key of pretrained_cfg -> what it may be
    "input_size": (_size, f"3 and two sides of 1 to {_SIDE} pixels"),
    "mean": (_three, "three finite numbers"),
    "std": (lambda v: _three(v) and min(v) > 0, "three finite numbers above 0"),
    "crop_pct": (
        lambda v: _real(v) and _CROP[0] <= v <= _CROP[1],
        f"a share from {_CROP[0]:g} to {_CROP[1]:g}",
    ),
    "interpolation": (lambda v: v in _INTERPOLATIONS, ", ".join(_INTERPOLATIONS)),
    "crop_mode": (lambda v: v in _CROPS, ", ".join(_CROPS)),
    "label_names": (_names, "a list of texts, or an object of index, from 0 or 1 on, and text"),
}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
