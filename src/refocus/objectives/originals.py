"""The model before tuning, which some terms measure the distance to.

A step whose original is no such model would measure nothing, or noise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from refocus.errors import InputError
from refocus.relevance.answers import logits_of
from refocus.relevance.switches import evaluating
from refocus.vit.classes import head_size
from refocus.vit.wrappers import unwrap


def check_original(model: nn.Module, original: nn.Module) -> None:
    """Refuse an original that is trained with the model, or that has other classes.

    Raises:
        InputError: says which.
    """
    trained = {id(weight) for weight in model.parameters() if weight.requires_grad}
    shared = any(id(weight) in trained for weight in original.parameters())
    if shared or unwrap(original) is unwrap(model):
        raise InputError(
            "original: shares its weights with the model that is trained, so it moves along; must "
            "be a copy from before tuning, such as copy.deepcopy(model)"
        )
    sizes = head_size(original), head_size(model)
    if None not in sizes and sizes[0] != sizes[1]:
        raise InputError(f"original: {sizes[0]} classes; must be {sizes[1]}, as the model has")


def answers(original: nn.Module, images: Tensor) -> Tensor:
    """Logits `[B, K]` of the original, in eval mode: with dropout each pass would teach another."""
    with torch.no_grad(), evaluating(original):
        return logits_of(original, images)


def start_of(model: nn.Module, original: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """By name, each weight of the model that is trained, and the original's.

    Raises:
        InputError: a weight that the original does not have, or has in another shape.
    """
    before = dict(unwrap(original).named_parameters())
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name, weight in unwrap(model).named_parameters():
        if not weight.requires_grad:
            continue
        if name not in before or before[name].shape != weight.shape:
            found = f"is {list(before[name].shape)} in it" if name in before else "is missing"
            raise InputError(
                f"original: the weight {name} {list(weight.shape)} {found}; l2_sp compares weights "
                "by name, so it must be a copy of the model, adapters included"
            )
        pairs[name] = weight, before[name].detach()
    return pairs
