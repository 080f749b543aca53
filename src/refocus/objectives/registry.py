"""The objectives, one table.

Each is a step: (model, images, masks, labels) -> its terms, "loss" among them.

images: normalized `[B, 3, H, W]`; masks: `[B, 1, H, W]` or `[B, H, W]` in [0, 1], soft allowed;
    labels: `[B]` class indices. Each term is a scalar tensor. A step leaves the backward pass of
    "loss" to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from refocus.objectives.steps import (
    Found,
    StepSettings,
    Terms,
    bce_step,
    consistency_step,
    energy_step,
    finetune_step,
    gradmask_step,
    legrad_step,
    refocus_step,
    relevance_step,
    rrr_step,
    swap_step,
)
from refocus.plugins import Table


class Step(Protocol):
    """What `objective` returns."""

    def __call__(self, model: nn.Module, images: Tensor, masks: Tensor, labels: Any) -> Terms:
        """The terms of one batch, each a scalar in the graph; "loss" is their weighted sum.

        Args:
            model: the module that is trained, in train mode or not; also inside
                `DistributedDataParallel`.
            images: normalized floats `[B, 3, H, W]` on the model's device.
            masks: `[B, 1, H, W]` or `[B, H, W]` in [0, 1], 1 is the object; also boolean.
            labels: class indices `[B]`; anything, also None, where no term with a weight reads
                them: with target="predicted", a `target` of your own or a map of no class, and for
                `consistency`.

        Raises:
            InputError: an argument of another type, shape, device or range.
        """
        ...


@dataclass(frozen=True)
class Objective:
    """A row of the table; a package of yours can add one (docs/extending.md).

    Args:
        step: (model, images, masks `[B, 1, H, W]`, labels, settings) -> the terms, each a scalar,
            and the logits of the images as they are, or None where it has not computed them.
        weights: of its terms by name; one named `relevance` is a factor on `background` and
            `foreground` (paper Eq. 3 and 5).
        about: one line for lists and help texts.
        lr: learning rate where the user names none: the paper's, or what docs/results.md used.
        switches: of `second_order`, `temperature` and `seen`, those that the caller may set; `tune`
            sets `seen` for all.
        exact: `second_order` is always on.
        share: of the tuned weights that is kept if the user names none
            (`Recipe.share`).
        by_map: trains GAE's relevance map by `relevance_patches`, so that it reads the settings
            `target` and `recompute`.
        needs_original: reads the model before tuning, `StepSettings.original`.
        needs_others: takes backgrounds of other images of the batch; a batch of one has none.
        without_labels: it can take the predicted class in place of labels where these terms, which
            read labels, have weight 0; None: it cannot.
        reads_labels: False where no label is read, so that labels may be None.
        by_label: terms that read labels as class indices. With a `target` of the caller's own,
            where all of them have weight 0, the step is not to read labels.
    """

    step: Callable[[nn.Module, Tensor, Tensor, Tensor, StepSettings], Found]
    weights: Mapping[str, float]
    about: str
    lr: float
    switches: tuple[str, ...] = ()
    exact: bool = False
    share: float = 1.0
    by_map: bool = False
    needs_original: bool = False
    needs_others: bool = False
    without_labels: tuple[str, ...] | None = None
    by_label: tuple[str, ...] = ()
    reads_labels: bool = True


_PUBLISHED = {
    "background": 2.0,
    "foreground": 0.3,
    "relevance": 0.8,
    "classification": 0.2,
}  # paper Table 5, all models alike
_OWN = {
    "relevance": Objective(
        relevance_step,
        _PUBLISHED,
        "published: squared error of the relevance against the mask, and confidence",
        lr=2e-6,
        switches=("second_order", "temperature"),
        by_map=True,
        without_labels=(),
    ),
    "relevance-exact": Objective(
        relevance_step,
        _PUBLISHED,
        "the same, with the derivative through the attention gradient",
        lr=2e-6,
        switches=("temperature",),
        exact=True,
        by_map=True,
        without_labels=(),
    ),
    "legrad": Objective(
        legrad_step,
        _PUBLISHED,
        "the same on LeGrad's map",
        lr=2e-6,
        switches=("temperature",),
        without_labels=(),
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
        "GradMask as the paper's code trained it: cross-entropy, and a mask term that is a "
        "constant",
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
        "RRR as the paper's code trained it: cross-entropy, and a mask term that is a constant",
        lr=2e-6,
    ),
    "energy": Objective(
        energy_step,
        {"energy": 1.0, "classification": 1.0},
        "share of relevance outside the mask, and cross-entropy",
        lr=5e-6,
        switches=("second_order",),
        by_map=True,
        without_labels=("classification",),
        by_label=("classification",),
    ),
    "bce": Objective(
        bce_step,
        {"bce": 1.0, "classification": 1.0},
        "binary cross-entropy of the relevance against the mask, and cross-entropy",
        lr=5e-6,
        switches=("second_order",),
        by_map=True,
        without_labels=("classification",),
        by_label=("classification",),
    ),
    "swap": Objective(
        swap_step,
        {"classification": 1.0},
        "cross-entropy on background swaps made with the masks",
        lr=1e-5,
        needs_others=True,
    ),
    "refocus": Objective(
        refocus_step,
        {"energy": 1.0, "classification": 1.0},
        "ours: energy, and cross-entropy among the classes tuned on, on images and their swaps; "
        "weights averaged 50/50 with the original are kept",
        lr=1e-5,
        share=0.5,  # what WiSE-FT recommends where nothing is known of the shift
        switches=("second_order", "seen"),
        by_map=True,
        needs_others=True,
        by_label=("classification",),
    ),
    "consistency": Objective(
        consistency_step,
        {"energy": 1.0, "consistency": 1.0},
        "ours, without labels: keeps the original model's answers on the images and on their "
        "background swaps; and energy; weights averaged 50/50 with the original are kept",
        lr=1e-5,
        switches=("second_order",),
        by_map=True,
        needs_original=True,
        reads_labels=False,
        share=0.5,  # as `refocus`
        needs_others=True,
    ),
}
OBJECTIVES = Table("refocus.objectives", _OWN, Objective)
