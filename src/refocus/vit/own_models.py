"""Models of the user's own: `py:MODULE:FUNCTION[@FOLDER]`.

It calls a function of the user's code and reads weights from a folder.

Code is only run that the user names on the command line; a folder cannot name any.
"""

from __future__ import annotations

import importlib
import json
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from refocus import references
from refocus.errors import InputError, first_line
from refocus.files import read_json
from refocus.runs import model_in
from refocus.vit.families import view


def load(name: str, *, pretrained: bool) -> nn.Module:
    """A copy of the module that FUNCTION() of MODULE (importable from here) returns.

    With the weights of FOLDER where one is given. A copy, because a function may return the same
    module each time, and what trains one must not change the other.

    Raises:
        InputError: there is no such function, it returns no module, or without a FOLDER modules
            with other weights each time: a command loads a model more than once.
    """
    made_by, _, place = name.partition("@")
    module, _, function = made_by.partition(":")
    if not (module and function):
        raise InputError(
            f"‹model› py:{name}: must be py:MODULE:FUNCTION or py:MODULE:FUNCTION@FOLDER"
        )
    model = _made(name)
    if pretrained and not place:
        _refuse_other_weights(made_by)
    view(model)  # refused here rather than after minutes
    if place:
        folder = model_in(Path(place).expanduser())
        try:
            config = read_json(folder / "config.json")
            if pretrained:
                model.load_state_dict(load_file(folder / "model.safetensors"))
            model.pretrained_cfg = config["own"]
        except (
            Exception
        ) as error:  # what torch and safetensors raise; all mean that this folder cannot be used
            raise InputError(
                f"‹model› py:{name}: {folder} does not hold weights of this model "
                f"({first_line(error)})"
            ) from error
    return model


def _made(name: str) -> nn.Module:
    """What FUNCTION() returns, as a module of its own."""
    module, _, function = name.partition("@")[0].partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` would find it
    try:
        model = getattr(importlib.import_module(module), function)()
        copy: Any = deepcopy(model)
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"‹model› py:{name}: {type(error).__name__}: {first_line(error)}"
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(copy, nn.Module):
        raise InputError(
            f"‹model› py:{name}: {function}() returned a {type(copy).__name__}; must be a "
            "torch.nn.Module"
        )
    return copy


@cache
def _refuse_other_weights(made_by: str) -> None:
    """Stop where two calls give two networks; asked once in a process."""
    first, second = (_made(made_by).state_dict() for _ in range(2))
    if other := [name for name in first if not torch.equal(first[name], second[name])]:
        raise InputError(
            f"‹model› py:{made_by}: the function returns other weights each time ({other[0]}); "
            "it must load a checkpoint or set a seed, or name a folder: "
            f"py:{made_by}@FOLDER"
        )


def code_of(ref: str) -> str:
    """py:MODULE:FUNCTION of a model's reference, without what follows it."""
    return references.split(ref)[0].partition("@")[0]


def recorded(ref: str, code: str | None) -> str:
    """A model's reference that was read back from a folder's own record.

    Raises:
        InputError: it would run code that the user has not named now.
    """
    made_by = code_of(ref)
    if ref.startswith("py:") and made_by != code:
        raise InputError(
            f"this folder's model is made by code, {made_by}; code is only run that you name: add "
            f"‹code={made_by}›"
        )
    return ref


def tuned(folder: Path, code: str | None) -> str:
    """How to load the model that a run of `tune` left."""
    return f"{code}@{folder}" if code else str(folder)


def save(model: nn.Module, folder: Path) -> None:
    """Weights, and the preprocessing and class names that stand in `pretrained_cfg`."""
    described: Any = getattr(model, "pretrained_cfg", {})
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"own": described}, indent=2), encoding="utf-8")
    save_file(
        {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()},
        folder / "model.safetensors",
    )
