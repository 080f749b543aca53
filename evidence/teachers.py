"""What the teacher of a direction says: log-probabilities `[B, K]` of a batch `[B, 3, H, W]`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from refocus.relevance.answers import logits_of

State = dict[str, Tensor]


@dataclass
class Course:
    """What a run of a direction keeps from one step to the next. `total`: steps of the run."""

    total: int
    taken: int = 0
    teacher: nn.Module | None = None
    mean: State = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What a teacher may look at. `every`: what the student sees."""

    original: nn.Module
    student: nn.Module
    every: Tensor
    images: Tensor
    labels: Tensor
    course: Course


def original(asked: Asked, temperature: float = 1.0) -> Tensor:
    """The product's: the original's answer to the untouched image."""
    return (logits_of(asked.original, asked.images) / temperature).log_softmax(1)


def corrected(asked: Asked) -> Tensor:
    """The same; where its class is not the label, the two exchange their probabilities."""
    found = original(asked)
    rows, said = torch.arange(len(found)), found.argmax(1)
    exchanged = found.clone()
    exchanged[rows, said] = found[rows, asked.labels]
    exchanged[rows, asked.labels] = found[rows, said]
    return exchanged


def averaged(asked: Asked) -> Tensor:
    """The mean of the original's probabilities over the image and its swaps."""
    answers = logits_of(asked.original, asked.every).softmax(1)
    return answers.view(-1, len(asked.images), answers.shape[1]).mean(0).log()


def follower(asked: Asked, steps: float | None = None) -> Tensor:
    """A running mean of the student's weights answers (Tarvainen and Valpola, NeurIPS 2017).

    steps: of which it is the mean. Default: a fifth of the run's.
    """
    course = asked.course
    if course.teacher is None:
        course.teacher = copy.deepcopy(asked.original)
    if asked.student.training:
        follow(course.teacher, asked.student, steps or max(1.0, 0.2 * course.total))
    return logits_of(course.teacher, asked.images).log_softmax(1)


def follow(teacher: nn.Module, student: nn.Module, steps: float) -> None:
    """Take a step towards the student; the start of each step of training."""
    for kept, now in zip(teacher.parameters(), student.parameters(), strict=True):
        kept.lerp_(now.detach(), 1 / steps)


Teach = Callable[[Asked], Tensor]
