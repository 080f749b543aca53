"""timm's models: by name from the hub, from a folder in timm hub format, and saved as one."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import timm
from torch import nn

from refocus.errors import InputError, first_line
from refocus.vit import parts
from refocus.vit.families import REFUSED
from refocus.vit.hub import asked_once
from refocus.vit.views import USE


def load_folder(folder: Path, config: dict[str, Any], *, pretrained: bool) -> nn.Module:
    """A model from a timm hub folder, `config` as its config.json holds it."""
    architecture = str(config["architecture"])
    check_architecture(architecture)
    try:
        return timm.create_model(f"local-dir:{folder}", pretrained=pretrained)
    # timm and safetensors raise many kinds here; all mean that this folder cannot be used
    except Exception as error:
        raise InputError(
            f"‹model› {folder}: cannot be loaded as {architecture}: {first_line(error)}"
        ) from error


def load_name(name: str, *, pretrained: bool) -> nn.Module:
    """A model by timm's name, ARCHITECTURE or ARCHITECTURE.WEIGHTS."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = (
            f"did you mean {', '.join(near)}?" if near else "`timm.list_models()` lists the names"
        )
        raise InputError(f"‹model› {name}: neither a timm model name nor a folder; {hint}")
    check_architecture(architecture)
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if name != architecture and name not in known:
        raise InputError(
            f"‹model› {name}: timm has no such weights; choose one of "
            f"{', '.join([architecture, *known])}"
        )
    if not pretrained:
        return timm.create_model(name, pretrained=False)
    answers = True
    try:
        with asked_once() as answers:
            return timm.create_model(name, pretrained=True)
    except Exception as error:  # what a failed download raises differs by network and hub version
        reason = first_line(error) if answers else "it does not answer"
        raise InputError(
            f"‹model› {name}: its weights cannot be fetched from the hub ({reason}); on "
            "a machine with access run "
            f"timm.models.save_for_hf(timm.create_model({name!r}, pretrained=True), DIR, "
            "safe_serialization=True) "
            "and give ‹model› DIR here"
        ) from error


def check_architecture(architecture: str) -> None:
    """Before any download: timm's modules are named like the classes in them."""
    if not timm.is_model(architecture):
        raise InputError(f"‹model›: timm knows no architecture {architecture!r}")
    module = timm.model_entrypoint(architecture).__module__.rsplit(".", 1)[-1].replace("_", "")
    if reason := next(
        (why for start, why in REFUSED.items() if module.startswith(start.lower())), None
    ):
        raise InputError(
            f"‹model› {architecture}: {reason}, so no attention map leads from the prediction to "
            f"every patch; {USE}"
        )


def save(model: nn.Module, folder: Path, names: list[str] | None) -> None:
    """Write a timm hub folder."""
    try:
        timm.models.save_for_hf(
            model,
            str(folder),
            model_config={"label_names": names} if names else None,
            safe_serialization=True,
        )
    except ValueError as error:  # an argument that was given as a Python class
        raise InputError(
            f"save {folder}: timm cannot write down how this model was made ({first_line(error)})"
        ) from error
    parts.refuse_another(
        model,
        lambda: timm.create_model(f"local-dir:{folder}", pretrained=False),
        "timm keeps only what create_model was given",
    )
