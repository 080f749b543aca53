"""What a method of the field is given and gives back, and the count of forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from evidence.sources import Source
from refocus.vit.wrappers import unwrap

BATCH = 8
DECAYS = 25  # the product's default: 0.85 every second of 50 epochs
DECAY = 0.85
WEIGHT_DECAY = 1e-4


def autocast(precision: str) -> AbstractContextManager[Any]:
    """The number format of forward passes."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


@dataclass(frozen=True)
class Work:
    """One run: `steps` of `BATCH` images at `rate`, from `model`, by `seed`."""

    model: Path
    source: Source
    images: int  # a class; 0: all of the pool
    half: bool  # of the classes, drawn by the seed
    seed: int
    steps: int
    rate: float
    precision: str
    folder: Path  # for files of the run
    early: Path | None = None  # the base model after one epoch (JTT)

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 where the field asks for it."""
        return autocast(self.precision)


@dataclass(frozen=True)
class Outcome:
    """Weights under the plain names, and what they were made of."""

    weights: dict[str, Tensor]
    used: list[str]  # CLASS/FILE of the training images
    trained: list[str]  # class folders
    steps: int
    batched: int  # images of all steps' batches
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Counted:
    """Images that went through networks of one kind: in training mode, and in all."""

    trained: int = 0
    all: int = 0


@contextmanager
def counting(model: nn.Module) -> Iterator[Counted]:
    """Count the images that pass any network of `model`'s class, copies and teachers included."""
    found, kind = Counted(), type(unwrap(model))

    def count(module: nn.Module, args: Any) -> None:
        if type(module) is kind and args:
            found.all += len(args[0])
            found.trained += len(args[0]) if module.training else 0

    handle = register_module_forward_pre_hook(count)
    try:
        yield found
    finally:
        handle.remove()


def stage(step: int, steps: int) -> float:
    """Factor on the rate at a step: 0.85 after each 25th part of the way, as in the product."""
    return DECAY ** (DECAYS * step // max(1, steps))
