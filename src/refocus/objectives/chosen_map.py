"""Which map a step trains: by name, or a function of the caller's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from refocus.errors import InputError
from refocus.objectives.steps import MakeMap
from refocus.relevance.maps import MAPS, Map
from refocus.relevance.scores import Target

_TWO, _AXES = 2, 3  # what a map of the caller's returns, and the axes of a map


def map_of(name: str | MakeMap, *, second_order: bool = False) -> MakeMap | None:
    """A map by name, or one of the caller's, as steps take it; None for GAE's.

    Raises:
        InputError: unknown, or a derivative that it does not have is asked for.
    """
    if name == "gae":
        return None
    if callable(name):
        if second_order:
            raise InputError("‹second_order›: a map of your own does not use it")
        return checked_map(name)
    if name not in MAPS:
        raise InputError(f"‹map› {name}: unknown; choose one of gae, {', '.join(MAPS)}")
    row = MAPS[name]
    if second_order and not row.second_order:
        raise InputError(f"‹second_order›: the map {name!r} does not use it")
    return NamedMap(row, second_order)


@dataclass(frozen=True)
class NamedMap:
    """A row of the maps as a step takes it."""

    row: Map
    second_order: bool

    def __call__(self, model: nn.Module, images: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Logits `[B, K]` and the raw map `[B, h, w]`."""
        return self.row.make(model, images, target, self.second_order)


def checked_map(make: MakeMap) -> MakeMap:
    """A map of the caller's behind a look at what it gives.

    Raises:
        InputError: another shape, a negative value, or a map outside of the graph, which would
            train nothing.
    """

    def checked(model: nn.Module, images: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        made = make(model, images, target)
        logits, raw = made if isinstance(made, tuple) and len(made) == _TWO else (None, None)
        if not (isinstance(logits, Tensor) and isinstance(raw, Tensor) and raw.ndim == _AXES):
            raise InputError("map: must return logits [B, K] and a map [B, h, w]")
        if len(raw) != len(images):
            raise InputError(f"map: returned {len(raw)} maps for {len(images)} images")
        if logits.shape[:1] != images.shape[:1] or logits.ndim != _TWO:
            raise InputError(f"map: returned logits {list(logits.shape)}; must be [B, K]")
        if bool((raw.detach() < 0).any()):
            raise InputError(
                f"map: returned values down to {raw.detach().amin():g}; must never be negative, as "
                "its energy is a share; take its positive part, raw.clamp(min=0)"
            )
        if torch.is_grad_enabled() and not raw.requires_grad:
            raise InputError("map: the returned map is outside of the graph, so it trains nothing")
        return logits, raw

    return checked
