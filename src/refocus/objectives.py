"""The objectives, one table. Each is a step: (model, images, masks, labels) -> its terms, "loss" among them.

images: normalized `[B, 3, H, W]`; masks: `[B, 1, H, W]` or `[B, H, W]` in [0, 1], soft allowed; labels: `[B]` class indices.
Each term is a scalar tensor. A step costs one forward pass and leaves the backward pass of "loss" to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from refocus import losses
from refocus.errors import InputError
from refocus.relevance import minmax, relevance_patches, upsample
from refocus.shifts import swap_backgrounds

Terms = dict[str, Tensor]


class Step(Protocol):
    def __call__(self, model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> Terms: ...


@dataclass(frozen=True)
class Settings:
    """What a step may read: the weight of each term by name, and the switches of `objective`."""

    weights: MappingProxyType[str, float]
    second_order: bool
    temperature: float
    seen: tuple[int, ...] | None


def relevance_step(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: Settings) -> Terms:
    """The published objective, paper Eq. 5: relevance of the true class, confidence in the predicted one."""
    logits, raw = relevance_patches(model, images, labels, create_graph=True, second_order=s.second_order)
    relevance, mask = minmax(upsample(raw, images.shape[-2:])), masks[:, 0]
    background, foreground = losses.background(relevance, mask), losses.foreground(relevance, mask)
    classification = losses.confidence(logits, s.temperature)
    mask_loss = s.weights["background"] * background + s.weights["foreground"] * foreground  # Eq. 3
    loss = s.weights["relevance"] * mask_loss + s.weights["classification"] * classification
    return {"loss": loss, "background": background, "foreground": foreground, "classification": classification}


def finetune_step(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: Settings) -> Terms:
    """Plain fine-tuning on the same images; the masks are not read. The baseline that every claim must beat."""
    classification = losses.classification(model(images), labels)
    return {"loss": s.weights["classification"] * classification, "classification": classification}


def energy_step(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: Settings) -> Terms:
    """The share of relevance outside the mask in place of the two squared errors; cross-entropy with the true label."""
    logits, raw = relevance_patches(model, images, labels, create_graph=True, second_order=s.second_order)
    energy = losses.outside_energy(upsample(raw, images.shape[-2:]), masks[:, 0])
    classification = losses.classification(logits, labels)
    loss = s.weights["energy"] * energy + s.weights["classification"] * classification
    return {"loss": loss, "energy": energy, "classification": classification}


def swap_step(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: Settings) -> Terms:
    """Cross-entropy on the objects standing on the next image's background, made with the same masks.

    The donor is the batch's next image, so a batch of one keeps its own background.
    """
    swapped = swap_backgrounds(images, masks, images.roll(1, 0), masks.roll(1, 0))
    classification = losses.classification(model(swapped), labels)
    return {"loss": s.weights["classification"] * classification, "classification": classification}


def refocus_step(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: Settings) -> Terms:
    """Ours: originals and background swaps in one batch; relevance energy, and cross-entropy among the classes tuned on."""
    swapped = swap_backgrounds(images, masks, images.roll(1, 0), masks.roll(1, 0))
    both, mask, labels = torch.cat([images, swapped]), masks[:, 0].repeat(2, 1, 1), labels.repeat(2)
    logits, raw = relevance_patches(model, both, labels, create_graph=True, second_order=s.second_order)
    energy = losses.outside_energy(upsample(raw, images.shape[-2:]), mask)
    classification = losses.seen_classification(logits, labels, _seen(labels, s, logits.shape[1]))
    loss = s.weights["energy"] * energy + s.weights["classification"] * classification
    return {"loss": loss, "energy": energy, "classification": classification}


def _seen(labels: Tensor, s: Settings, classes: int) -> Tensor:
    """Classes tuned on, and those of this batch (on validation images of other classes the two differ); all without `seen`."""
    if s.seen is None:
        return torch.arange(classes, device=labels.device)
    return torch.cat([torch.tensor(s.seen, device=labels.device), labels]).unique()


@dataclass(frozen=True)
class Objective:
    step: Callable[[nn.Module, Tensor, Tensor, Tensor, Settings], Terms]
    weights: dict[str, float]
    about: str
    switches: tuple[str, ...] = ()  # of second_order and temperature, those that it reads


OBJECTIVES = {
    "relevance": Objective(
        relevance_step,
        {"background": 2.0, "foreground": 0.3, "relevance": 0.8, "classification": 0.2},  # paper Table 5, all models alike
        "published: squared error of the relevance against the mask, and confidence",
        ("second_order", "temperature"),
    ),
    "finetune": Objective(finetune_step, {"classification": 1.0}, "cross-entropy with labels, no masks (baseline)"),
    "energy": Objective(
        energy_step,
        {"energy": 1.0, "classification": 1.0},
        "share of relevance outside the mask, and cross-entropy",
        ("second_order",),
    ),
    "swap": Objective(swap_step, {"classification": 1.0}, "cross-entropy on background swaps made with the masks"),
    "refocus": Objective(
        refocus_step,
        {"energy": 1.0, "classification": 1.0},
        "ours: energy, and cross-entropy among the classes tuned on, on images and their swaps",
        ("second_order",),
    ),
}


def objective(
    name: str, *, second_order: bool = False, temperature: float = 1.0, seen: Sequence[int] | None = None, **weights: float
) -> Step:
    """A step for one row of the table.

    Args:
        name: a key of `OBJECTIVES`.
        second_order: also differentiate through the attention gradient G (exact derivative of the relevance). The published
            code does not; ours neither unless asked. Costs about one more backward pass.
        temperature: divides the logits in the confidence term (DeiT: 0.65 for B, 0.55 for S in the published code).
        seen: indices of the classes tuned on (`tune` passes them); `refocus` compares among these only. None: all classes.
        **weights: weights of the objective's terms by name; missing ones keep the table's.

    Raises:
        InputError: unknown objective or term, or a switch that the objective does not read.
    """
    if name not in OBJECTIVES:
        raise InputError(f"--objective {name}: unknown; legal are {', '.join(OBJECTIVES)}")
    row = OBJECTIVES[name]
    if unknown := sorted(set(weights) - set(row.weights)):
        raise InputError(f"--weight {unknown[0]}: objective {name!r} has no such term; its terms are {', '.join(row.weights)}")
    for switch, given in (("second_order", second_order), ("temperature", temperature != 1.0)):
        if given and switch not in row.switches:
            raise InputError(f"--{switch.replace('_', '-')}: objective {name!r} does not read it")
    settings = Settings(
        MappingProxyType({**row.weights, **weights}), second_order, temperature, tuple(seen) if seen is not None else None
    )

    def step(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> Terms:
        masks = masks[:, None] if masks.ndim == 3 else masks
        return row.step(model, images, masks.to(images.dtype), labels, settings)

    return step
