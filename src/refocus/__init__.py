"""refocus: make a Vision Transformer look at the object.

Importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("refocus-vit")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

# name -> module, loaded on first use; no module may share a name, or importing it would shadow the
# function
_PUBLIC = {
    "InputError": "errors",
    "Recipe": "tuning.recipe",
    "load": "vit.loading",
    "save": "vit.loading",
    "attention_maps": "relevance.attention",
    "recorded": "relevance.attention",
    "explain": "relevance.gae",
    "objective": "objectives.registry",
    "tokencut": "masks.discovery",
    "segmentation_scores": "evaluation.metrics",
    "background_share": "evaluation.metrics",
    "tune": "tuning.tune",
    "resume": "tuning.tune",
    "evaluate": "evaluation.classify",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(
            f"module 'refocus' has no attribute {name!r}; it has {', '.join(sorted(__all__))}"
        )
    value = getattr(import_module(f"refocus.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
