"""Which function computes the attention of transformers' models, as their configurations say."""

from __future__ import annotations

from typing import Any

from torch import nn

from refocus.vit.views import unsupported

KIND = "_attn_implementation"
# what transformers computes alike; another is a function that somebody registered
_ALIKE = (
    *(None, "eager", "sdpa", "flex_attention"),
    *("flash_attention_2", "flash_attention_3", "flash_attention_4"),
)


def configurations(model: nn.Module) -> list[Any]:
    """Each configuration once, before those inside of it, which setting it sets too."""
    found = (c for m in model.modules() for c in _with_parts(getattr(m, "config", None)))
    return list({id(config): config for config in found}.values())


def _with_parts(config: Any) -> list[Any]:
    if not hasattr(config, KIND):
        return []
    parts = [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]
    return [config, *(inner for part in parts for inner in _with_parts(part))]


def refuse_registered(model: nn.Module) -> None:
    """Stop at attention of somebody's own, in whose place transformers' would be computed.

    Raises:
        InputError: names it.
    """
    for kind in (getattr(config, KIND) for config in configurations(model)):
        if kind not in _ALIKE:
            raise unsupported(
                model,
                f"its attention is computed by {kind!r}, which is not one of transformers' own; "
                "call its set_attn_implementation with sdpa or eager",
            )
