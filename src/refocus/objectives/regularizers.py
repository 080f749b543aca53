"""Terms that any objective takes beside its own, off unless given a weight: one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from refocus.objectives import losses, rotations
from refocus.objectives.originals import answers, start_of
from refocus.objectives.steps import StepSettings, trained_logits
from refocus.relevance.answers import last_linear_input, second_answer
from refocus.vit.loading import preprocessing


@dataclass(frozen=True)
class Pass:
    """What a term may read: images `[B, 3, H, W]`, their logits `[B, K]` and labels `[B]`."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    logits: Tensor
    settings: StepSettings

    @property
    def original(self) -> nn.Module:
        """The model before tuning, which `objective` has asked for."""
        assert self.settings.original is not None
        return self.settings.original


@dataclass(frozen=True)
class Regularizer:
    """A row: the term as a scalar, what it is, and what it needs.

    That is the model before tuning, or a lesson with a teacher.
    """

    term: Callable[[Pass], Tensor]
    about: str
    needs_original: bool = False
    needs_lesson: bool = False


def _confidence(p: Pass) -> Tensor:
    return losses.confidence(p.logits, p.settings.temperature)


def _labels(p: Pass) -> Tensor:
    return losses.classification(p.logits, p.labels)


def _kl(p: Pass) -> Tensor:
    return losses.distance_to_teacher(p.logits, answers(p.original, p.images))


def _l2_sp(p: Pass) -> Tensor:
    # what is where it began adds nothing, and a parameter that no pass uses (a mask token) must not
    # get a gradient of zeros, of which distributed training has been told that it gets none
    pairs = start_of(p.model, p.original).values()
    moved = [(now, before) for now, before in pairs if not torch.equal(now, before)]
    if not moved:
        return p.logits.sum() * 0
    return losses.distance_to_start(*zip(*moved, strict=True))


def _rotation(p: Pass) -> Tensor:
    return rotations.loss(last_linear_input(p.model, rotations.turned(p.images))[1].flatten(1))


def _shape(p: Pass) -> Tensor:
    """KL(teacher || token) on the images in the style of the batch's next one.

    Source: Naseer et al., NeurIPS 2021 (shape distillation). Deviation: there the teacher was
    trained on stylized images and sees natural ones; here both see the same stylized images, so
    that any teacher shows what it knows of shapes. A batch of one has no other style and gives 0.
    """
    lesson = p.settings.lesson
    assert lesson is not None
    if len(p.images) == 1:
        return p.logits.sum() * 0
    config = preprocessing(p.model)
    triples = (
        ((0.5,) * 3,) * 2
        if p.settings.published_complement
        else (
            config["mean"],
            config["std"],
        )
    )
    mean, std = (torch.tensor(part).view(3, 1, 1).to(p.images) for part in triples)
    pixels = (p.images * std + mean).clamp(0, 1)
    stylized = lesson.restyle(pixels, pixels.roll(-1, 0), 1.0)
    answer = second_answer if lesson.token == "second" else trained_logits
    return losses.distance_to_teacher(
        answer(p.model, (stylized - mean) / std), lesson.teacher(stylized)
    )


REGULARIZERS = {
    "confidence": Regularizer(
        _confidence, "cross-entropy with the model's own prediction (paper Eq. 4)"
    ),
    "labels": Regularizer(_labels, "cross-entropy with the true label"),
    "kl": Regularizer(_kl, "distance of the answers to the original model's", needs_original=True),
    "l2_sp": Regularizer(
        _l2_sp, "squared distance of the weights to the original's", needs_original=True
    ),
    "shape": Regularizer(
        _shape,
        "a teacher's answers to the images in the style of others (shape distillation; needs "
        "a teacher)",
        needs_lesson=True,
    ),
    "rotation": Regularizer(
        _rotation,
        "which of four rotations an image has, predicted linearly from the features (auxiliary "
        "task; "
        "square inputs)",
    ),
}
