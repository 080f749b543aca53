"""The paper's hyperparameters for its seven models (Tables 5, 6 and 7), `assets/recipes.toml`."""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import Any

from refocus.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_PUBLISHED = {  # objective -> its table in the file
    "relevance": "relevance",
    "rrr-as-published": "rrr",
    "gradmask-as-published": "gradmask",
}


def presets() -> dict[str, dict[str, Any]]:
    """Name of the paper's model -> its entry."""
    return tomllib.loads(
        files("refocus").joinpath("assets", "recipes.toml").read_text(encoding="utf-8")
    )


def preset(name: str, objective: str = "relevance", model: str | None = None) -> dict[str, Any]:
    """What the paper tuned this model with, as fields of a Recipe.

    A preset belongs to the objective that it was published for: the rates and weights of the
    paper's GradMask and RRR fit a mask term that trains nothing.

    Args:
        name: ViT-B, ViT-L, AR-S, AR-B, AR-L, DeiT-S or DeiT-B.
        objective: `relevance`, `gradmask-as-published` or `rrr-as-published`.
        model: the caller's own weights, in place of timm's.

    Returns:
        model, lr, temperature and weights.

    Raises:
        InputError: no such model, an objective that the paper did not run on it, or weights that no
            longer exist.
    """
    known = presets()
    if name not in known:
        raise InputError(f"‹preset› {name}: unknown; choose one of {', '.join(known)}")
    row = known[name]
    legal = {own: table for own, table in _PUBLISHED.items() if table in row}
    if objective not in legal:
        raise InputError(
            f"‹preset› {name}: was not published for ‹objective› {objective}; choose one of "
            f"{', '.join(legal)}"
        )
    table = legal[objective]
    if model is None and "timm" not in row:
        raise InputError(
            f"‹preset› {name}: {row['missing']}; give ‹model› to use other weights with this preset"
        )
    weights = {term: value for term, value in row[table].items() if term != "lr"}
    temperature = row.get("temperature", 1.0) if table == "relevance" else 1.0
    return {
        "model": model or row["timm"],
        "lr": row[table]["lr"],
        "temperature": temperature,
        "weights": weights,
    }
