"""Weight files that training scripts leave: a state dict by itself or in a record, of a timm model.

Nothing in such a file is run: torch reads it with `weights_only=True`. The architecture is what the
file or the `args.yaml` beside it says, or what the user names.
"""

from __future__ import annotations

import logging
import math
import pickle
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
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
    "model_ema_state_dict",
    "ema_model",
    "ema_weights",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
)
_INSIDE = ("state_dict", "model_state_dict", "model", "module")  # of what stands at such a place
_EMA = re.compile(r"(^|[._])ema([._]|$)")  # in the prefix of an averaged copy's names
_PATCHES = "patch_embed.proj.weight"  # every architecture has it, and a head alone has not
_PREFIXES = 16  # class token, distillation token and registers, at most
_SAID = ("mean", "std", "interpolation", "crop_pct")  # of timm's arguments, for the preprocessing
_ARGUMENTS = 1 << 20  # bytes of args.yaml
BEST = "model_best.pth.tar"  # what timm's train.py leaves in its output folder


def load_file(file: Path, arch: str | None, *, pretrained: bool, named: bool = False) -> nn.Module:
    """A timm model from a weight file: .pth, .pt, .bin, .tar, .ckpt or .safetensors.

    Args:
        file: a state dict, or a record that holds one, as timm's train.py and Lightning write.
        arch: timm's name of the architecture, where the file does not say it.
        pretrained: False keeps random weights.
        named: whether names for the outputs follow from elsewhere.

    Raises:
        InputError: no weights, several models' weights, no architecture, weights of another
            architecture, outputs in an order that only a class map knows, or a file that could not
            be read without running what is in it.
    """
    shown = f"‹model› {file}"
    content = _read(file, shown)
    said = _arguments(content, file)
    found = _weights(content, shown)
    written = _text(content.get("arch")) or _text(said.get("model"))
    if not arch or arch == written.partition(".")[0]:
        arch = written  # with timm's tag of the weights, which decides the preprocessing
    if not arch:
        raise InputError(
            f"{shown}: does not say its architecture; name it as {file.name}?arch=NAME, with a "
            "name of timm, such as vit_small_patch16_224"
        )
    _check(arch, shown)
    if said.get("class_map") and not named:
        raise InputError(
            f"{shown}: was trained with class_map {said['class_map']}, so its outputs are not in "
            "the order of the class folders; give ‹names› with one name for each output"
        )
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
        weights = _state(content if place is None else content.get(place))
        if weights:
            if place is not None and "ema" in place:
                log.info("%s: the averaged weights are taken (%s)", shown[8:], place)
            return weights
    raise InputError(f"{shown}: holds no weights; must be a state dict, or a record with one")


def _state(found: object) -> dict[str, Tensor]:
    """The tensors of a state dict, also of one a level deeper; {} where there are none."""
    if not isinstance(found, Mapping):
        return {}
    deeper = (found.get(place) for place in _INSIDE)
    inner = next((part for part in deeper if isinstance(part, Mapping)), found)
    return {str(k): v for k, v in inner.items() if isinstance(v, Tensor)}


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


def _check(arch: str, shown: str) -> None:
    """Refuse an architecture that timm or refocus does not have, and a tag that timm does not."""
    check_architecture(arch)
    try:
        timm.get_pretrained_cfg_value(arch, "mean")
    except RuntimeError as error:
        plain = arch.partition(".")[0]
        known = ", ".join([plain, *timm.list_models(f"{plain}.*", pretrained=True)])
        raise InputError(
            f"{shown}: timm {timm.__version__} knows no weights {arch}, whose preprocessing is "
            f"wanted; name them as FILE?arch=NAME, with one of {known}"
        ) from error


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
    before = [prefix for prefix in before if prefix + _PATCHES in weights] or before
    found = [
        {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
        for prefix in sorted(before, key=len)
    ]
    return found[_one_of(sorted(before, key=len), found, shown)]


def _one_of(prefixes: list[str], models: list[dict[str, Tensor]], shown: str) -> int:
    """Which of several models in one state dict: the averaged copy, where one alone is called so.

    Raises:
        InputError: nothing says which.
    """
    averaged = [i for i, prefix in enumerate(prefixes) if _EMA.search(prefix)]
    if len(averaged) == 1:
        log.info("%s: the averaged weights are taken (%s)", shown[8:], prefixes[averaged[0]])
        return averaged[0]
    if all(_same(models[0], other) for other in models[1:]):
        return 0
    listed = ", ".join(prefix or "without a prefix" for prefix in prefixes)
    raise InputError(
        f"{shown}: holds {len(prefixes)} models ({listed}); must hold one: save only the one that "
        "is meant, torch.save(model.state_dict(), FILE)"
    )


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def _built(arch: str, weights: dict[str, Tensor], said: dict[str, Any], shown: str) -> nn.Module:
    """The architecture as it was trained: classes, input size, pooling and preprocessing."""
    given = said.get("model_kwargs")
    sizes: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}
    head = weights[_head(arch)]
    if head.ndim != 2:
        raise InputError(f"{shown}: {_head(arch)} is {list(head.shape)}; must be [classes, width]")
    sizes["num_classes"] = len(head)
    if _text(said.get("gp")):
        sizes["global_pool"] = said["gp"]
    seen = _seen(said, shown)
    if "img_size" not in sizes:
        sizes |= _input_size(arch, weights, seen)
    known = {k: said[k] for k in _SAID if said.get(k) not in (None, "")}
    for key in ("mean", "std"):  # timm takes one number for all channels
        if isinstance(known.get(key), list | tuple) and len(known[key]) == 1:
            known[key] = [*known[key]] * 3
    side = sizes.get("img_size")
    if seen or side:
        known["input_size"] = seen or (
            3,
            *(side if isinstance(side, list | tuple) else (side,) * 2),
        )
    try:
        model = timm.create_model(arch, pretrained=False, pretrained_cfg_overlay=known, **sizes)
    except Exception as error:  # timm passes them on to any class
        raise InputError(
            f"{shown}: {arch} cannot be built with {sizes} ({first_line(error)})"
        ) from error
    _refuse_other_size(model, seen, shown)
    return model


def _seen(said: dict[str, Any], shown: str) -> tuple[int, ...] | None:
    """Channels, height and width of the images of training, where its arguments say them."""
    size, side = said.get("input_size"), said.get("img_size")
    if size is None and side is None:
        return None
    given = side if size is None else size
    # DeiT's main.py calls one side input_size
    found = (3, given, given) if size is None or isinstance(size, int) else size
    if not isinstance(found, list | tuple) or list(map(type, found)) != [int] * 3:
        raise InputError(
            f"{shown}: its arguments say {'input_size' if size is not None else 'img_size'} "
            f"{given}; must be 3, height and width, or one side"
        )
    return tuple(found)


def _refuse_other_size(model: Any, seen: tuple[int, ...] | None, shown: str) -> None:
    """Stop where the weights are of one input size and the arguments of training say another."""
    patches: Any = getattr(model, "patch_embed", None)
    made = getattr(patches, "img_size", None)
    strict = getattr(patches, "strict_img_size", False)
    if seen and made and strict and tuple(made) != tuple(seen[1:]):
        raise InputError(
            f"{shown}: its arguments say images of {seen[2]}x{seen[1]} pixels, its weights are for "
            f"{made[1]}x{made[0]}; fix img_size or input_size"
        )


def _input_size(
    arch: str, weights: dict[str, Tensor], seen: tuple[int, ...] | None
) -> dict[str, Any]:
    """`img_size` that the position embedding is of, where it is not what timm would make.

    seen: what training saw. A model that takes any size keeps the embedding of another.
    """
    position, patches = weights.get("pos_embed"), weights.get(_PATCHES)
    if position is None or patches is None or (position.ndim, patches.ndim) != (3, 4):
        return {}
    tokens, patch = position.shape[1], max(1, patches.shape[-1])

    def fits(size: Sequence[int]) -> bool:
        return 0 <= tokens - math.prod(side // patch for side in size) <= _PREFIXES

    usual = (timm.get_pretrained_cfg_value(arch, "input_size") or (3, 0, 0))[1:]
    if seen and fits(seen[1:]):
        return {"img_size": seen[1:]}
    if fits(usual):
        return {"img_size": usual} if seen else {}
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
