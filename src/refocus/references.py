"""The words that name a model, such as FOLDER, hf:FOLDER?order=natural or FILE?arch=NAME."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from refocus.errors import InputError
from refocus.runs import model_in

_SAID = re.compile(r"(?P<ref>.+)\?(?P<key>arch|names|order)=(?P<value>[^?]+)", re.DOTALL)
_WEIGHTS = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".safetensors")  # files of training scripts


def split(ref: str) -> tuple[str, dict[str, str]]:
    """A model's reference without what follows it, and that.

    MODEL?order=natural, MODEL?names=FILE, and for a weight file FILE?arch=NAME before these.
    """
    said: dict[str, str] = {}
    while match := _SAID.fullmatch(ref):
        ref = match["ref"]
        said = {match["key"]: match["value"], **said}
    return ref, said


def parts(model: str) -> tuple[str, Path]:
    """The folder in a model's reference, and what stands before it.

    FOLDER, hf:FOLDER or py:MODULE:FUNCTION@FOLDER. Of a run the folder of its model.
    """
    model = split(model)[0]
    at = (
        model.find("@") + 1
        if model.startswith("py:") and "@" in model
        else 3
        if model.startswith("hf:")
        else 0
    )
    folder = Path(model[at:])
    with contextlib.suppress(RuntimeError):  # the home of nobody
        folder = folder.expanduser()
    return model[:at], model_in(folder)


def with_names(ref: str, *, names: str | Path | None = None, order: str | None = None) -> str:
    """A model's reference that says how its outputs are named; it can be loaded from anywhere.

    Raises:
        InputError: names and an order together, of which one decides alone.
    """
    if names is not None and order is not None:
        raise InputError("‹names› and ‹order›: give one of them; names decide the order")
    if names is None and order is None:
        return ref
    plain, said = split(ref)
    plain += f"?arch={said['arch']}" if "arch" in said else ""
    if names is not None:
        return f"{plain}?names={Path(names).expanduser().resolve()}"
    return f"{plain}?order={order}"


def is_weights(path: Path) -> bool:
    """Whether a path is a weight file by its name and there."""
    return path.suffix in _WEIGHTS and path.is_file()


def resolved(model: str) -> str:
    """A model as given, a folder by its full path, so that it can be loaded again from anywhere."""
    before, folder = parts(model)
    if not folder.is_dir() and not is_weights(folder):
        return model
    plain, said = split(model)
    return f"{before}{folder.resolve()}{model[len(plain) :] if said else ''}"


def folder_of(model: str) -> Path:
    """The folder that a model's reference names, whether or not there is one."""
    return parts(model)[1]
