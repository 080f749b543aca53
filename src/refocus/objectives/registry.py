"""The objectives, one table.

Each is a step: (model, images, masks, labels) -> its terms, "loss" among them.

images: normalized `[B, 3, H, W]`; masks: `[B, 1, H, W]` or `[B, H, W]` in [0, 1], soft allowed;
    labels: `[B]` class indices. Each term is a scalar tensor. A step leaves the backward pass of
    "loss" to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from refocus.errors import InputError
from refocus.objectives import losses, rotations
from refocus.objectives.steps import (
    Found,
    Settings,
    Terms,
    bce_step,
    energy_step,
    finetune_step,
    gradmask_step,
    legrad_step,
    refocus_step,
    relevance_step,
    rrr_step,
    swap_step,
)
from refocus.relevance.attention import last_linear_input, logits_of
from refocus.vit.families import unwrap


class Step(Protocol):
    def __call__(
        self, model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor
    ) -> Terms: ...


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """weights: of its terms by name; one named `relevance` is a factor on `background` and
    `foreground` (paper Eq. 3 and 5). lr: rate where the user names none: the paper's, or what
    docs/results.md used. share: of the way to the tuned weights that is kept, likewise
    (Recipe.share). switches: of second_order and temperature, those that the caller may set. exact:
    second_order is always on.
    """

    step: Callable[[nn.Module, Tensor, Tensor, Tensor, Settings], Found]
    weights: dict[str, float]
    about: str
    lr: float
    switches: tuple[str, ...] = ()
    exact: bool = False
    share: float = 1.0


_PUBLISHED = {
    "background": 2.0,
    "foreground": 0.3,
    "relevance": 0.8,
    "classification": 0.2,
}  # paper Table 5, all models alike
OBJECTIVES = {
    "relevance": Objective(
        relevance_step,
        _PUBLISHED,
        "published: squared error of the relevance against the mask, and confidence",
        lr=2e-6,
        switches=("second_order", "temperature"),
    ),
    "relevance-exact": Objective(
        relevance_step,
        _PUBLISHED,
        "the same, with the derivative through the attention gradient",
        lr=2e-6,
        switches=("temperature",),
        exact=True,
    ),
    "legrad": Objective(
        legrad_step,
        _PUBLISHED,
        "the same on LeGrad's map",
        lr=2e-6,
        switches=("temperature",),
    ),
    "finetune": Objective(
        finetune_step,
        {"classification": 1.0},
        "cross-entropy with labels, no masks (baseline)",
        lr=1e-5,
    ),
    "gradmask": Objective(
        gradmask_step,
        {"background": 1.0, "classification": 1.0},
        "GradMask: input gradient of the true class outside the mask, and cross-entropy",
        lr=1e-5,
        exact=True,
    ),
    "gradmask-as-published": Objective(
        gradmask_step,
        {"background": 50.0, "classification": 3e-9},  # paper Table 7, ViT-B
        "what the paper's GradMask trained: its mask term is a constant, and cross-entropy",
        lr=2e-4,
    ),
    "rrr": Objective(
        rrr_step,
        {"background": 1e-4, "classification": 1.0},
        "Right for the Right Reasons: input gradient of all classes outside the mask, and "
        "cross-entropy",
        lr=1e-5,
        exact=True,
    ),
    "rrr-as-published": Objective(
        rrr_step,
        {"background": 1e-10, "classification": 2e-6},  # paper Table 6, ViT-B
        "what the paper's RRR trained: its mask term is a constant, and cross-entropy",
        lr=2e-6,
    ),
    "energy": Objective(
        energy_step,
        {"energy": 1.0, "classification": 1.0},
        "share of relevance outside the mask, and cross-entropy",
        lr=5e-6,
        switches=("second_order",),
    ),
    "bce": Objective(
        bce_step,
        {"bce": 1.0, "classification": 1.0},
        "binary cross-entropy of the relevance against the mask, and cross-entropy",
        lr=5e-6,
        switches=("second_order",),
    ),
    "swap": Objective(
        swap_step,
        {"classification": 1.0},
        "cross-entropy on background swaps made with the masks",
        lr=1e-5,
    ),
    "refocus": Objective(
        refocus_step,
        {"energy": 1.0, "classification": 1.0},
        "ours: energy, and cross-entropy among the classes tuned on, on images and their swaps; "
        "half of the way is kept",
        lr=1e-5,
        share=0.5,  # what WiSE-FT recommends where nothing is known of the shift
        switches=("second_order",),
    ),
}
REGULARIZERS = {  # terms that any objective takes, off unless given a weight
    "confidence": "cross-entropy with the model's own prediction (paper Eq. 4)",
    "labels": "cross-entropy with the true label",
    "kl": "distance of the answers to the original model's",
    "l2_sp": "squared distance of the weights to the original's",
    "rotation": "which of four turns the images have, read linearly from the features (auxiliary "
    "task; square inputs)",
}


def objective(
    name: str,
    *,
    second_order: bool = False,
    temperature: float = 1.0,
    seen: Sequence[int] | None = None,
    original: nn.Module | None = None,
    target: Callable[[Tensor], Tensor] | None = None,
    recompute: bool = False,
    **weights: float,
) -> Step:
    """A step for one row of the table.

    Args:
        name: a key of `OBJECTIVES`.
        second_order: also differentiate through the attention gradient G (exact derivative of the
            relevance). The published code does not; ours neither unless asked. Costs about one more
            backward pass.
        temperature: divides the logits in the confidence terms (DeiT: 0.65 for B, 0.55 for S in the
            published code).
        seen: indices of the classes tuned on (`tune` passes them); `refocus` compares among these
            only. None: all classes.
        original: the model before tuning, frozen; `kl` and `l2_sp` measure the distance to it.
        target: a function from logits `[B, K]` to a score per image `[B]`, whose relevance is
            trained in place of the true class's (regression, several labels); set the weight of
            terms that read labels to 0 then.
        recompute: form attention maps anew in the backward pass, one layer at a time, in place of
            keeping all: about the memory of a plain step at any resolution, for a sixth to a third
            more time (docs/performance.md).
        **weights: weights of the objective's terms by name, and of any of `REGULARIZERS`; missing
            ones keep the table's, or 0.

    Raises:
        InputError: unknown objective or term, a switch that the objective does not read, or no
            `original` where one is needed.
    """
    if name not in OBJECTIVES:
        raise InputError(f"‹objective› {name}: unknown; legal are {', '.join(OBJECTIVES)}")
    row = OBJECTIVES[name]
    if unknown := sorted(set(weights) - set(row.weights) - set(REGULARIZERS)):
        raise InputError(
            f"‹weights› {unknown[0]}: objective {name!r} has no such term; its terms are "
            f"{', '.join(row.weights)}, "
            f"and any objective takes {', '.join(REGULARIZERS)}"
        )
    by_map = row.step in (relevance_step, energy_step, bce_step, refocus_step)
    if unread := [
        name
        for name, given in (("target", target is not None), ("recompute", recompute))
        if given and not by_map
    ]:
        raise InputError(
            f"{unread[0]}: objective {name!r} does not read it; those with a map of GAE do"
        )
    if recompute and (second_order or row.exact):
        raise InputError(
            "recompute: keeps no graph of the attention gradient, which the exact derivative of "
            f"{name!r} needs"
        )
    for switch, given in (("second_order", second_order), ("temperature", temperature != 1.0)):
        if (
            given
            and switch not in row.switches
            and not (switch == "temperature" and weights.get("confidence"))
        ):
            raise InputError(f"‹{switch}›: objective {name!r} does not read it")
    settings = Settings(
        second_order or row.exact,
        temperature,
        tuple(seen) if seen is not None else None,
        target,
        recompute,
    )
    merged = MappingProxyType({**row.weights, **weights})
    extra = [term for term in REGULARIZERS if merged.get(term)]
    if original is None and (needy := [term for term in extra if term in ("kl", "l2_sp")]):
        raise InputError(
            f"objective {name!r}: the term {needy[0]!r} needs `original`, the model before tuning"
        )

    def step(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> Terms:
        masks = masks[:, None] if masks.ndim == 3 else masks
        terms, logits = row.step(model, images, masks.to(images.dtype), labels, settings)
        if extra:
            logits = logits_of(model, images) if logits is None else logits
            terms |= {
                term: _regularizer(term, model, logits, images, labels, settings, original)
                for term in extra
            }
        return {"loss": total(terms, merged), **terms}

    return step


def total(terms: Terms, weights: MappingProxyType[str, float]) -> Tensor:
    """The weighted sum of the terms; the weight `relevance` is a factor on the published mask loss
    (paper Eq. 3, 5).
    """
    mask_loss = weights.get("relevance", 1.0)
    parts = [
        value * weights[term] * (mask_loss if term in ("background", "foreground") else 1.0)
        for term, value in terms.items()
    ]
    return torch.stack(parts).sum()


def _regularizer(
    term: str,
    model: nn.Module,
    logits: Tensor,
    images: Tensor,
    labels: Tensor,
    s: Settings,
    original: nn.Module | None,
) -> Tensor:
    if term == "confidence":
        return losses.confidence(logits, s.temperature)
    if term == "labels":
        return losses.classification(logits, labels)
    if term == "rotation":
        return rotations.loss(last_linear_input(model, rotations.turned(images))[1].flatten(1))
    assert original is not None  # `objective` asked for it
    if term == "kl":
        with torch.no_grad():
            teacher = logits_of(original, images)
        return losses.distance_to_teacher(logits, teacher)
    start = dict(original.named_parameters())
    tuned = {
        name: weight for name, weight in unwrap(model).named_parameters() if weight.requires_grad
    }
    return losses.distance_to_start(tuned.values(), [start[name].detach() for name in tuned])
