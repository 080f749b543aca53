"""Whether a model's library would build the same network from a folder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from refocus.errors import InputError

# of attention with layers inside, where it says how it splits and scales what these give
_OF_HEADS = ("num_heads", "num_attention_heads", "head_dim", "scale", "scaling")
_IDLE = ("Dropout", "DropPath", "Identity", "PatchDropout")  # nothing of them is in an answer


def refuse_another(model: nn.Module, build: Callable[[], nn.Module], why: str) -> None:
    """Stop where a library builds another network from a folder than the one that is in it.

    Such as with an activation that was exchanged, which has no weights that could be missing.

    Args:
        model: what is saved.
        build: what the library does to build it; the weights do not matter.
        why: what the library keeps.

    Raises:
        InputError: names the first part that differs.
    """
    try:
        with torch.device("meta"):  # takes no memory
            again = build()
    except Exception:  # some models look at values while they are built
        return
    made, saved = _parts(again), _parts(model)
    changed = [name for name in {**saved, **made} if saved.get(name) != made.get(name)]
    if changed:
        here, there = (side.get(changed[0], "nothing") for side in (saved, made))
        raise InputError(
            f"model: its {changed[0]} is {here}, and read from a folder it would be {there}: "
            f"{why}; make the model with that, or give it as py:MODULE:FUNCTION (docs/extending.md)"
        )


def _parts(model: nn.Module) -> dict[str, str]:
    """Name -> kind and settings of each part that computes something, and how tokens are pooled.

    Of parts with parts inside, the numbers that an attention splits and scales its heads by.
    """
    parts = {
        name: f"{type(part).__name__}({part.extra_repr()})"
        for name, part in model.named_modules()
        if not list(part.children()) and type(part).__name__ not in _IDLE
    }
    heads = {
        f"{name}.{key}": str(value)
        for name, part in model.named_modules()
        if list(part.children())
        for key in _OF_HEADS
        if isinstance(value := getattr(part, key, None), int | float)
    }
    pooled = ("global_pool", "pool_include_prefix")
    return parts | heads | {key: str(getattr(model, key)) for key in pooled if hasattr(model, key)}
