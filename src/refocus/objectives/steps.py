"""What a step of each objective computes: (model, images, masks, labels, settings) -> its terms.

`registry.py` has the table.

images: normalized `[B, 3, H, W]`; masks: `[B, 1, H, W]` in [0, 1]; labels: `[B]` class indices.
    Each term is a scalar tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from refocus.data.styles import by_amplitudes
from refocus.data.swaps import next_donors, other_class_neighbours, swap_backgrounds
from refocus.errors import InputError
from refocus.objectives import losses
from refocus.objectives.originals import answers
from refocus.relevance.answers import logits_of
from refocus.relevance.attention import attention_maps
from refocus.relevance.gae import normalized, relevance_patches, upsample
from refocus.relevance.legrad import legrad_patches
from refocus.relevance.scores import Target, score, slopes
from refocus.vit.families import covered_pixels, view
from refocus.vit.precision import passes_in_autocast
from refocus.vit.views import unsupported

Terms = dict[str, Tensor]
# (model, images, what the map is of) -> logits `[B, K]` and raw map `[B, h, w]`, in the graph
MakeMap = Callable[[nn.Module, Tensor, Target], tuple[Tensor, Tensor]]
_SWAPS = 3  # of each image in a step of `refocus`


@dataclass(frozen=True)
class Lesson:
    """What a teacher's answers on stylized images are learned by.

    teacher: pixels in [0, 1] -> logits `[B, K]`. token: that learns. restyle: (pixels, styles,
    strength) -> pixels with the styles' textures.
    """

    teacher: Callable[[Tensor], Tensor]
    token: Literal["class", "second"] = "class"
    restyle: Callable[[Tensor, Tensor, float], Tensor] = by_amplitudes


@dataclass(frozen=True)
class StepSettings:
    """What a step may read: the arguments of `objective`."""

    second_order: bool = False
    temperature: float = 1.0
    seen: tuple[int, ...] | None = None
    target: Callable[[Tensor], Tensor] | None = None
    recompute: bool = False
    original: nn.Module | None = None
    unread: frozenset[str] = frozenset()  # terms of weight 0, which need not be computed
    # whose backgrounds `swap` and `refocus` take within a batch: of images of other classes where
    # there are any, or of its neighbours of any class (as before; for comparisons)
    donors: Literal["other classes", "neighbours"] = "other classes"
    published_complement: bool = False  # of soft masks, in the two squared errors
    predicted: bool = False  # the map is of the class that the model predicts; no label is read
    map: MakeMap | None = None  # in place of GAE's
    lesson: Lesson | None = None  # what the term `shape` learns

    def explained(self, labels: Tensor) -> Target:
        """What the relevance is of: the true class, the predicted one, or what the caller named."""
        if self.predicted:
            return None
        return labels if self.target is None else self.target

    def donors_of(self, images: Tensor, labels: Tensor | None, turns: int) -> list[Tensor]:
        """For each turn, positions `[B]` of the donors of a batch's images."""
        several = not isinstance(labels, Tensor) or labels.ndim != 1  # or none: no class an image
        if self.donors == "neighbours" or labels is None or several:
            return next_donors(len(images), turns)
        return other_class_neighbours(labels, turns)


# a step's own terms, and the logits of the images as they are, where it has computed them
Found = tuple[Terms, Tensor | None]


# --- by the relevance map -----------------------------------------------------------------------


def relevance_step(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> Found:
    """The published objective, paper Eq. 5.

    Relevance of the true class, confidence in the predicted one.
    """
    logits, raw = relevance_map(model, images, labels, s)
    return _squared_errors(logits, normalized(raw, *extent(model, raw, images)), masks, s), logits


def legrad_step(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> Found:
    """The published terms on LeGrad's map in place of GAE's.

    Always with the second derivative, for there is no other.
    """
    logits, raw = legrad_patches(model, images, s.explained(labels), create_graph=True)
    return _squared_errors(logits, normalized(raw, *extent(model, raw, images)), masks, s), logits


def relevance_map(
    model: nn.Module, images: Tensor, labels: Tensor, s: StepSettings
) -> tuple[Tensor, Tensor]:
    """Logits `[B, K]` and the raw map `[B, h, w]`, GAE's unless the settings have another."""
    if s.map is not None:
        return s.map(model, images, s.explained(labels))
    return relevance_patches(
        model,
        images,
        s.explained(labels),
        create_graph=True,
        second_order=s.second_order,
        recompute=s.recompute,
    )


def extent(
    model: nn.Module, raw: Tensor, images: Tensor
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of the images, and what of it a map `[B, h, w]` covers, as `upsample` takes them.

    A map that is none of the model's patches (one of the caller's own) covers all.
    """
    height, width = images.shape[-2:]
    try:
        of_patches = tuple(raw.shape[-2:]) == tuple(view(model).grid(height, width))
    except InputError:  # no Vision Transformer; a map of the caller's own needs none
        of_patches = False
    size = (height, width)
    return size, covered_pixels(model, size) if of_patches else size


def _squared_errors(logits: Tensor, relevance: Tensor, masks: Tensor, s: StepSettings) -> Terms:
    mask = masks[:, 0]
    outside = losses.published_complement(mask) if s.published_complement else None
    return {
        "background": losses.background(relevance, mask, outside),
        "foreground": losses.foreground(relevance, mask),
        "classification": losses.confidence(logits, s.temperature),
    }


def energy_step(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> Found:
    """The share of relevance outside the mask in place of the two squared errors.

    Cross-entropy with the true label.
    """
    logits, raw = relevance_map(model, images, labels, s)
    energy = losses.outside_energy(upsample(raw, *extent(model, raw, images)), masks[:, 0])
    return {"energy": energy, **_of_labels(logits, labels, s)}, logits


def bce_step(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> Found:
    """Binary cross-entropy of the map against the mask in place of the two squared errors.

    Cross-entropy with the true label.
    """
    logits, raw = relevance_map(model, images, labels, s)
    relevance = normalized(raw, *extent(model, raw, images))
    bce = losses.binary_relevance(relevance, masks[:, 0])
    return {"bce": bce, **_of_labels(logits, labels, s)}, logits


def _of_labels(logits: Tensor, labels: Tensor, s: StepSettings) -> Terms:
    """Cross-entropy where it has a weight: elsewhere labels may be no class indices."""
    if "classification" in s.unread:
        return {}
    return {"classification": losses.classification(logits, labels)}


# --- by input gradients -------------------------------------------------------------------------


def gradmask_step(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> Found:
    """GradMask, paper Eq. 8 and 9.

    `second_order` False makes the mask term a constant, as in the paper's code.
    """
    logits, gradient = _input_gradient(
        model, images, lambda logits: score(logits, labels), s.second_order
    )
    return {
        "background": losses.gradmask(gradient, masks),
        "classification": losses.classification(logits, labels),
    }, logits


def rrr_step(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> Found:
    """Right for the Right Reasons, paper Eq. 8 and 10.

    `second_order` False makes the mask term a constant, as there.
    """
    logits, gradient = _input_gradient(
        model, images, lambda z: z.log_softmax(1).sum(), s.second_order
    )
    return {
        "background": losses.right_reasons(gradient, masks),
        "classification": losses.classification(logits, labels),
    }, logits


def _input_gradient(
    model: nn.Module, images: Tensor, answer: Callable[[Tensor], Tensor], create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of `answer` by the pixels.

    It is within the graph only through attention that is not fused.
    """
    images = images.detach().requires_grad_()
    with attention_maps(model):  # scaled_dot_product_attention has no second derivative
        logits = logits_of(model, images)
    (gradient,) = slopes(answer(logits), [images], within_graph=create_graph)
    if gradient is None:
        raise unsupported(model, "its answer does not depend on the images")
    return logits, gradient


# --- by labels and swaps ------------------------------------------------------------------------


def finetune_step(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> Found:
    """Plain fine-tuning on the same images; the masks are not read.

    The baseline that every claim must beat.
    """
    logits = trained_logits(model, images)
    return {"classification": losses.classification(logits, labels)}, logits


def trained_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Logits `[B, K]` for a backward pass.

    In bfloat16 on a CPU attention is computed by its map: the backward pass of torch's fused
    attention makes a whole step 1.3 times slower there (docs/performance.md).
    """
    if images.device.type == "cpu" and passes_in_autocast(model, images.device):
        with attention_maps(model):
            return logits_of(model, images)
    return logits_of(model, images)


def swap_step(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> Found:
    """Cross-entropy on the objects standing on another image's background.

    Made with the same masks. The donor is of the batch, of another class where it has one, so a
    batch of one keeps its own background.
    """
    (donors,) = s.donors_of(images, labels, 1)
    swapped = swap_backgrounds(images, masks, images[donors], masks[donors])
    logits = trained_logits(model, swapped)
    return {"classification": losses.classification(logits, labels)}, None


def refocus_step(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> Found:
    """Ours: each image and three background swaps of it, of other classes, in one batch.

    Relevance energy, and cross-entropy among the classes tuned on.
    """
    every, count = _with_swaps(images, masks, s.donors_of(images, labels, turns(images)))
    # where labels are not read, they may be anything
    repeated = torch.cat([labels] * count) if isinstance(labels, Tensor) else labels
    logits, terms = with_energy(model, every, masks, repeated, s)
    if "classification" not in s.unread:
        seen = _seen(labels, s, logits.shape[1])
        terms["classification"] = losses.seen_classification(logits, repeated, seen)
    return terms, logits[: len(images)]


def consistency_step(
    model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> Found:
    """Ours, without labels: what the original answers to an image is to hold on its swaps as well.

    The mean KL(p || q) over each image and three background swaps of it, p the original model's
    softmax on the untouched image, and the relevance energy of the class that it predicts. The
    labels are not read.
    """
    assert s.original is not None
    teacher = answers(s.original, images)
    neighbours = next_donors(len(images), turns(images))  # what their classes are is not known
    every, count = _with_swaps(images, masks, neighbours)
    predicted = teacher.argmax(1).repeat(count)
    logits, terms = with_energy(model, every, masks, predicted, s)
    terms["consistency"] = losses.distance_to_teacher(logits, teacher.repeat(count, 1))
    return terms, logits[: len(images)]


def turns(images: Tensor) -> int:
    """How many swaps of each image a batch makes; one of a single image makes none."""
    return min(_SWAPS, len(images) - 1)


def _with_swaps(images: Tensor, masks: Tensor, donors: list[Tensor]) -> tuple[Tensor, int]:
    """The images and their background swaps `[count B, 3, H, W]`, and `count`."""
    swapped = [swap_backgrounds(images, masks, images[at], masks[at]) for at in donors]
    return torch.cat([images, *swapped]), 1 + len(swapped)


def with_energy(
    model: nn.Module, every: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
) -> tuple[Tensor, Terms]:
    """Logits of the images and their swaps, and the relevance energy where it has a weight."""
    if "energy" in s.unread:
        return trained_logits(model, every), {}
    logits, raw = relevance_map(model, every, labels, s)
    mask = masks[:, 0].repeat(len(every) // len(masks), 1, 1)
    return logits, {
        "energy": losses.outside_energy(upsample(raw, *extent(model, raw, every)), mask)
    }


def _seen(labels: Tensor, s: StepSettings, classes: int) -> Tensor:
    """Classes tuned on, and those of this batch; all without `seen`.

    On validation images of other classes the two differ.
    """
    if s.seen is None:
        return torch.arange(classes, device=labels.device)
    known: Tensor = torch.unique(torch.cat([torch.tensor(s.seen, device=labels.device), labels]))
    return known
