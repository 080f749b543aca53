"""Weight files that training scripts leave: a state dict by itself or in a record, of a timm model.

Nothing in such a file is run: torch reads it with `weights_only=True`. The architecture is what the
file or the `args.yaml` beside it says, or what the user names.
"""

from __future__ import annotations

import logging
import math
import pickle
from argparse import Namespace
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from refocus.errors import InputError, first_line
from refocus.files import read_text
from refocus.vit.timm_models import check_architecture

log = logging.getLogger("refocus")

# where the weights lie in a record; averaged ones (EMA) first, which timm evaluates as well
_PLACES = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "state_dict",
    "model_state_dict",
    "model",
)
_SAID = ("mean", "std", "interpolation", "crop_pct")  # of timm's arguments, for the preprocessing
_ARGUMENTS = 1 << 20  # bytes of args.yaml
BEST = "model_best.pth.tar"  # what timm's train.py leaves in its output folder


def load_file(file: Path, arch: str | None, *, pretrained: bool) -> nn.Module:
    """A timm model from a weight file: .pth, .pt, .bin, .tar, .ckpt or .safetensors.

    Args:
        file: a state dict, or a record that holds one, as timm's train.py and Lightning write.
        arch: timm's name of the architecture, where the file does not say it.
        pretrained: False keeps random weights.

    Raises:
        InputError: no weights, no architecture, weights of another architecture, or a file that
            could not be read without running what is in it.
    """
    shown = f"‹model› {file}"
    content = _read(file, shown)
    said = _arguments(content, file)
    found = _weights(content, shown)
    arch = arch or _text(content.get("arch")) or _text(said.get("model"))
    if not arch:
        raise InputError(
            f"{shown}: does not say its architecture; name it as {file.name}?arch=NAME, with a "
            "name of timm, such as vit_small_patch16_224"
        )
    arch = arch.partition(".")[0]
    check_architecture(arch)
    weights = _without_prefix(found, arch, shown)
    model = _built(arch, weights, said, shown)
    if pretrained:
        _fill(model, weights, arch, shown)
    return model


def read_weights(file: Path, shown: str) -> dict[str, Tensor]:
    """The weights in a file of any network, read without running what is in it.

    Raises:
        InputError: none, or a file that cannot be read so; begins with `shown`.
    """
    return _weights(_read(file, shown), shown)


def _read(file: Path, shown: str) -> dict[str, Any]:
    try:
        if file.suffix == ".safetensors":
            return dict(load_safetensors(file))
        with torch.serialization.safe_globals([Namespace, SimpleNamespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{shown}: holds more than weights, and reading it would run code; save only its "
            "weights: torch.save(model.state_dict(), FILE)"
        ) from error
    except (OSError, RuntimeError, SafetensorError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{shown}: cannot be read as weights ({first_line(error)})") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{shown}: holds a {type(content).__name__}; must be a state dict")
    return dict(content)


def _weights(content: dict[str, Any], shown: str) -> dict[str, Tensor]:
    """The state dict in a record, or the record itself."""
    for place in (*_PLACES, None):
        found = content if place is None else content.get(place)
        if isinstance(found, Mapping):
            weights = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
            if weights:
                if place is not None and "ema" in place:
                    log.info("%s: the averaged weights are taken (%s)", shown[8:], place)
                return weights
    raise InputError(f"{shown}: holds no weights; must be a state dict, or a record with one")


def _arguments(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """What the training script was called with: in the record, else in `args.yaml` beside it."""
    for key in ("args", "hyper_parameters"):
        given = content.get(key)
        if isinstance(given, Namespace | SimpleNamespace):
            return vars(given)
        if isinstance(given, Mapping):
            return dict(given)
    beside = file.with_name("args.yaml")
    if not beside.is_file():
        return {}
    yaml: Any = import_module("yaml")  # timm depends on it
    try:
        said = yaml.safe_load(read_text(beside, most=_ARGUMENTS))
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{beside}: cannot be read ({first_line(error)})") from error
    return said if isinstance(said, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _head(arch: str) -> str:
    """The classifier's weight, by its name in timm."""
    name = timm.get_pretrained_cfg_value(arch, "classifier") or "head"
    return f"{name if isinstance(name, str) else name[0]}.weight"


def _without_prefix(weights: dict[str, Tensor], arch: str, shown: str) -> dict[str, Tensor]:
    """Names as timm has them: without `module.`, `model.`, `_orig_mod.` or another wrapper's."""
    head = _head(arch)
    before = [k[: -len(head)] for k in weights if k == head or k.endswith(f".{head}")]
    if not before:
        raise InputError(f"{shown}: has no {head}, so these are not weights of {arch}")
    prefix = min(before, key=len)
    return {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}


def _built(arch: str, weights: dict[str, Tensor], said: dict[str, Any], shown: str) -> nn.Module:
    """The architecture with as many classes, and of the input size, that the weights are of."""
    given = said.get("model_kwargs")
    sizes: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}
    head = weights[_head(arch)]
    if head.ndim != 2:
        raise InputError(f"{shown}: {_head(arch)} is {list(head.shape)}; must be [classes, width]")
    sizes["num_classes"] = len(head)
    sizes |= _input_size(arch, weights)
    known = {k: said[k] for k in _SAID if said.get(k) is not None}
    if "img_size" in sizes:
        known["input_size"] = (3, sizes["img_size"], sizes["img_size"])
    try:
        return timm.create_model(arch, pretrained=False, pretrained_cfg_overlay=known, **sizes)
    except Exception as error:  # timm passes them on to any class
        raise InputError(
            f"{shown}: {arch} cannot be built with {sizes} ({first_line(error)})"
        ) from error


def _input_size(arch: str, weights: dict[str, Tensor]) -> dict[str, int]:
    """The side of a square input, where the position embedding is of another than the default."""
    position, patches = weights.get("pos_embed"), weights.get("patch_embed.proj.weight")
    if position is None or patches is None or (position.ndim, patches.ndim) != (3, 4):
        return {}
    tokens, patch = position.shape[1], max(1, patches.shape[-1])
    default = (timm.get_pretrained_cfg_value(arch, "input_size") or (3, 0, 0))[-1]
    usual = (default // patch) ** 2
    if usual <= tokens <= usual + 16:  # with class token, distillation token and registers
        return {}
    extra = sum(name in weights for name in ("cls_token", "dist_token"))
    for count in (tokens, tokens - extra):
        side = math.isqrt(count)
        if side * side == count:
            return {"img_size": side * patch}
    return {}


def _fill(model: nn.Module, weights: dict[str, Tensor], arch: str, shown: str) -> None:
    """Every weight of the model, and none of another shape."""
    wanted = model.state_dict()
    for name, value in wanted.items():
        found = weights.get(name)
        if found is None:
            raise InputError(f"{shown}: has no {name}, so these are not weights of {arch}")
        if found.shape != value.shape:
            raise InputError(
                f"{shown}: {name} is {list(found.shape)}, in {arch} it is {list(value.shape)}; "
                "give the architecture that was trained"
            )
    if more := sorted(set(weights) - set(wanted)):
        raise InputError(f"{shown}: holds {more[0]}, which {arch} has not")
    model.load_state_dict({name: weights[name] for name in wanted})


def in_folder(folder: Path) -> Path | None:
    """The weights in the output folder of timm's train.py, where it is one."""
    return folder / BEST if (folder / BEST).is_file() else None
