"""Load and save Vision Transformers of any library.

The model carries its own preprocessing and class names. A loaded model is the library's plain
module, so everything that works on those works on it. It carries a `pretrained_cfg` as timm's
models do, where its preprocessing (`timm.data.resolve_model_data_config(model)`) and its class
names stand.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_model_data_config
from torch import nn

from refocus import fingerprints, references
from refocus.errors import InputError, Message, first_line
from refocus.files import naming
from refocus.runs import model_in
from refocus.vit import (
    checkpoints,
    own_models,
    timm_models,
    torchvision_models,
    transformers_models,
    zero_shot,
)
from refocus.vit.classes import (
    class_count,
    folder_names,
    in_order,
    label_names,
    natural,
    read_names,
    refuse_unfinished_weights,
    refuse_unusable_head,
    replace_names,
    set_order,
)
from refocus.vit.configs import counts_in_bytes, read_config, refuse_unusable
from refocus.vit.families import family
from refocus.vit.inputs import check_flag, check_model, check_path, shown
from refocus.vit.wrappers import unwrap

log = logging.getLogger("refocus")

_LOADED_FROM = (
    "refocus_source"  # attribute on a loaded model, for run records; not part of its state_dict
)
_FILES = {"config.json", "model.safetensors", "preprocessor_config.json", zero_shot.HEAD}


def load(
    ref: str | Path,
    *,
    pretrained: bool = True,
    device: str | torch.device = "cpu",
    names: Iterable[str] | Mapping[int, str] | str | Path | None = None,
    order: str | None = None,
    arch: str | None = None,
) -> nn.Module:
    """Load a Vision Transformer that classifies images, in eval mode.

    Args:
        ref: a timm name ("vit_small_patch16_224"; weights come from the hub or its local cache),
            "hf:ID" (transformers), "torchvision:NAME" or "torchvision:NAME.WEIGHTS",
            "py:MODULE:FUNCTION@FOLDER" (your own, docs/extending.md), or a folder that timm
            (`local-dir:FOLDER`), transformers (`from_pretrained(FOLDER)`), PEFT or `save` wrote,
            that of a finished `tune` or `run`, or a weight file of a timm model (.pth, .pt, .bin,
            .tar, .ckpt, .safetensors; read without running what is in it). A reference may end in
            "?order=natural", "?order=string", "?names=FILE" or "?arch=NAME", which say the same as
            the arguments below and travel with it into recipes and records.
        pretrained: False gives random weights; names of timm and torchvision then need no network
            (for tests).
        device: where to put it.
        names: class names in the order of the outputs, by index, or a file of them (`read_names`),
            in place of any that the checkpoint carries, but not the same ones in another order.
        order: how class folders name the outputs of a model without names: "natural", as timm
            sorts them, or "string", as torchvision and transformers do.
        arch: timm's name of the architecture, for a weight file that does not say it.

    Returns:
        The library's own module, with its preprocessing and class names in `pretrained_cfg`.

    Raises:
        InputError: unknown name, no such folder, unusable weights, an unsupported architecture, a
            device that is not there, or no way to the hub.

    Examples:
        >>> import refocus
        >>> model = refocus.load("vit_tiny_patch16_224", pretrained=False)
        >>> type(model).__name__, model.num_classes, model.training
        ('VisionTransformer', 1000, False)
    """
    place, pretrained = _device(device), check_flag("pretrained", pretrained)
    model, listed, order = _made(ref, pretrained, names, order, arch)
    _name(model, listed, order)
    return model.eval().to(place)


Listed = Sequence[str] | None  # names that a person gives


def _made(
    ref: str | Path,
    pretrained: bool,
    names: Iterable[str] | Mapping[int, str] | str | Path | None,
    order: str | None,
    arch: str | None,
) -> tuple[nn.Module, Listed, str | None]:
    """The model as its checkpoint describes it, and the names and the order that are given."""
    if not isinstance(ref, str | Path) or not str(ref):
        raise InputError(
            f"‹model›: {shown(ref)}; must be a name or a folder, str or Path (`refocus models` "
            "lists the families)"
        )
    ref, said = references.split(str(ref))
    names = said.get("names") if names is None else names
    order = said.get("order") if order is None else order
    ref = ref.removeprefix("local-dir:")
    place = _place_of(ref)
    arch = arch or said.get("arch")
    model = _unnamed(ref, place, arch, pretrained=pretrained, named=names is not None)
    if place is not None:
        known = f"?arch={arch}" if arch else ""
        ref = f"{place.resolve()}{known}"
    setattr(model, _LOADED_FROM, ref)
    renamed = names is not None
    refuse_unusable(model, f"‹model› {ref}", renamed=renamed)
    _look_at_normalization(model, f"‹model› {ref}")
    refuse_unusable_head(model, f"‹model› {ref}", renamed=renamed)
    if pretrained:
        refuse_unfinished_weights(model, f"‹model› {ref}")
    return model, _listed(names), order


def _listed(names: object) -> Listed:
    if names is None:
        return None
    if isinstance(names, str | os.PathLike):
        return read_names(Path(names).expanduser())
    return in_order(names, "‹names›")


def _name(model: nn.Module, listed: Listed, order: str | None) -> None:
    if listed is not None:
        replace_names(model, listed, "‹names›")
    if order is not None:
        set_order(model, order)


def _look_at_normalization(model: nn.Module, shown: str) -> None:
    """Warn of a mean or std for pixels of 0 to 255, which would leave nothing of an image.

    timm and transformers apply such to pixels of 0 to 1 as well, so their answers are these.

    Raises:
        InputError: no other library would read it so.
    """
    said: Any = getattr(model, "pretrained_cfg", None) or {}
    if not counts_in_bytes(said):
        return
    row = family(model)
    library = row[1].library if row else ""
    text = f"{shown}: its mean {said.get('mean')}, std {said.get('std')} are for pixels of 0 to 255"
    if library in ("timm", "transformers"):
        log.warning(
            Message(
                f"{text}, and {library} takes them for 0 to 1, as here: hardly anything of an "
                "image is left; divide them by 255 unless the model was trained like that"
            )
        )
    else:
        raise InputError(f"{text}; must be for pixels of 0 to 1: divide them by 255")


def _place_of(ref: str) -> Path | None:
    """The folder or weight file that a reference names, if there is one; of a run its model."""
    try:
        place = model_in(Path(ref.removeprefix("hf:")).expanduser())
        return place if place.is_dir() or references.is_weights(place) else None
    except (OSError, RuntimeError):  # too long for a name, or the home of nobody
        return None


def _unnamed(
    ref: str, place: Path | None, arch: str | None, *, pretrained: bool, named: bool
) -> nn.Module:
    """The library's module, before names and order that the caller gives."""
    library, _, name = ref.partition(":")
    file = checkpoints.in_folder(place) if place is not None and place.is_dir() else place
    if file is not None:
        return checkpoints.load_file(file, arch, pretrained=pretrained, named=named)
    if arch is not None:
        raise InputError(f"‹model› {ref}: arch {arch} is only for a weight file (.pth, .pt, ...)")
    if place is not None:
        return _load_folder(place, pretrained=pretrained)
    if library == "hf":
        return transformers_models.load_name(name, pretrained=pretrained)
    if library == "torchvision":
        return torchvision_models.load_name(name, pretrained=pretrained)
    if library == "py":
        return own_models.load(name, pretrained=pretrained)
    if set("/\\") & set(ref) or ref.startswith("."):
        raise InputError(
            f"‹model› {ref}: no such folder; give a timm name, hf:ID, torchvision:NAME or a folder "
            "with model.safetensors"
        )
    return timm_models.load_name(ref, pretrained=pretrained)


def _device(device: str | torch.device) -> torch.device:
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"‹device›: {shown(device)}; must be a device of torch, such as cpu or cuda:0"
        ) from error
    try:
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"‹device› {place}: not usable here ({first_line(error)})") from error
    return place


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
            f"‹device› {name}: not usable here; choose one of auto, "
            f"{', '.join(d for d in usable if usable[d])}"
        )
    if name != "cuda":
        return torch.device(name)
    local = os.environ.get("LOCAL_RANK")
    return torch.device("cuda", torch.cuda.current_device() if local is None else int(local))


def source(model: nn.Module) -> str:
    """What `load` was called with, or the class name of a model that it did not load.

    Of a folder the resolved path.
    """
    inner = unwrap(model)
    return getattr(inner, _LOADED_FROM, type(inner).__name__)


def _load_folder(folder: Path, *, pretrained: bool) -> nn.Module:
    """Whose folder it is, its config.json says."""
    if (folder / transformers_models.ADAPTER).is_file():
        return _adapted(folder, pretrained=pretrained)
    _refuse_incomplete(folder)
    config = read_config(folder)
    kinds = [key for key in ("architecture", "model_type", "torchvision", "own") if key in config]
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


def _refuse_incomplete(folder: Path) -> None:
    missing = [n for n in ("config.json", "model.safetensors") if not (folder / n).is_file()]
    if not missing:
        return
    steps = sorted(folder.glob("checkpoint-*"), key=lambda path: natural(path.name))
    if steps and missing[0] == "config.json":
        raise InputError(f"‹model› {folder}: holds training checkpoints; give {steps[-1]}")
    if (folder / "pytorch_model.bin").is_file() and missing == ["model.safetensors"]:
        raise InputError(
            f"‹model› {folder}: holds its weights as pytorch_model.bin; write them as safetensors: "
            f"AutoModelForImageClassification.from_pretrained({str(folder)!r})"
            ".save_pretrained(NEW)"
        )
    raise InputError(
        f"‹model› {folder}: {missing[0]} is missing; a model folder holds config.json and "
        "model.safetensors"
    )


def _adapted(folder: Path, *, pretrained: bool) -> nn.Module:
    """A base model with the adapter of a PEFT folder merged into it."""
    base = transformers_models.base_of(folder)
    if (Path(base).expanduser() / transformers_models.ADAPTER).is_file():
        raise InputError(
            f"‹model› {folder}: an adapter of {base}, which is an adapter as well; merge that one "
            "into its base first: model.merge_and_unload()"
        )
    model = load(base if _place_of(base) or ":" in base else f"hf:{base}", pretrained=pretrained)
    transformers_models.take_processor(model, folder)
    return transformers_models.with_adapter(model, folder) if pretrained else model


def preprocessing(model: nn.Module) -> dict[str, Any]:
    """The model's own input size, interpolation, mean, std and crop share, as timm resolves them.

    Raises:
        InputError: the model does not say input size, mean and std, and a guess would be wrong for
            some.
    """
    inner = unwrap(model)
    said = getattr(inner, "pretrained_cfg", None) or {}
    if missing := [key for key in ("input_size", "mean", "std") if said.get(key) is None]:
        raise InputError(
            f"model: {type(inner).__name__} says nothing of its preprocessing; load it with "
            f"refocus.load, or give {', '.join(missing)} in an attribute pretrained_cfg "
            "(docs/extending.md)"
        )
    return {
        k: tuple(v) if isinstance(v, list) else v
        for k, v in resolve_model_data_config(inner).items()
    }


def save(model: nn.Module, folder: str | Path) -> None:
    """Write a model as its own library reads it: `config.json` and `model.safetensors`.

    timm: `timm.create_model("local-dir:FOLDER", pretrained=True)`. transformers:
    `from_pretrained(FOLDER)`, of a zero-shot model the image tower. torchvision:
    `VisionTransformer(**config["torchvision"])` and `load_state_dict`.

    Args:
        model: of a supported family, also inside `DataParallel` or `torch.compile`; PEFT's adapters
            are merged into a copy.
        folder: a new folder, or one that holds a model, which is replaced.

    Raises:
        InputError: the folder holds anything else, or the model is of no supported family.

    Examples:
        >>> import refocus
        >>> model = refocus.load("vit_tiny_patch16_224", pretrained=False)
        >>> refocus.save(model, "model")
        >>> again = refocus.load("model")
        >>> bool((again.head.weight == model.head.weight).all())
        True
    """
    check_model(model)
    model = _plain(model)
    folder = check_path(folder, "folder").resolve()
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= _FILES):
        raise InputError(
            f"save {folder}: holds something other than a model and is not overwritten; name a new "
            "folder"
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with naming(folder):
            _write(model, partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(model: nn.Module, folder: Path) -> None:
    """As the model's own library writes it."""
    names = label_names(model)
    row = family(model)
    if isinstance(model, zero_shot.ZeroShot):
        zero_shot.save(model, folder)
    elif row is None or source(model).startswith("py:"):  # code makes it anew, as it was changed
        own_models.save(model, folder)
    elif row[1].library == "transformers":
        transformers_models.save(model, folder, names)
    elif row[1].library == "torchvision":
        torchvision_models.save(model, folder, names)
    else:
        timm_models.save(model, folder, names)


def _plain(model: nn.Module) -> nn.Module:
    """The model without wrappers, as its library knows it; adapters of PEFT become its weights."""
    adapted: Any = model
    if hasattr(model, "merge_and_unload"):
        adapted = deepcopy(model)
        return unwrap(adapted.merge_and_unload())
    return unwrap(model)


def weights_digest(model: nn.Module) -> str:
    """A short fingerprint of all weights and buffers of a model, independent of its source."""
    content = blake2b(digest_size=8)
    for name, value in model.state_dict().items():
        content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content.update(memoryview(value.detach().cpu().reshape(-1).view(torch.uint8).numpy()))
    return content.hexdigest()


_READ = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


def reading_digest(model: nn.Module) -> str:
    """A short fingerprint of how a model sees an image and what its outputs are called."""
    config = preprocessing(model)
    return fingerprints.of_text([config.get(key) for key in _READ], folder_names(model))


def identity(ref: str, model: nn.Module) -> list[str]:
    """What a model is, to be compared when it is asked again.

    By the content of its folder or file; by its weights where they lie elsewhere (a hub's model, an
    adapter).

    Args:
        ref: what `load` was called with.
        model: what it returned.
    """
    found = fingerprints.of_model(ref)
    return found if fingerprints.is_known(ref) else [*found, weights_digest(model)]


Models = dict[str, nn.Module]  # "model", and "against" where there is one before


def load_together(refs: Mapping[str, str], device: torch.device | str) -> Models:
    """Models by what they are called; names that are given are for those that carry none.

    Where all carry names, they replace them.
    """
    made = {}
    for which, ref in refs.items():
        try:
            made[which] = _made(ref, True, None, None, None)
        except InputError as error:
            raise error.renamed("model", which) from error
    bare = {which for which, (model, _, _) in made.items() if not label_names(model)}
    for which, (model, listed, order) in made.items():
        _name(model, listed if which in bare or not bare else None, order)
    return {which: model.eval().to(device) for which, (model, _, _) in made.items()}


def load_models(model: str, against: str | None, device: torch.device) -> Models:
    """The model and the one before, which must know the same classes."""
    models = load_together({"model": model, **({"against": against} if against else {})}, device)
    if against is not None:
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
