"""What must be known of a model to follow its relevance, and how classifiers read tokens.

Axes: N tokens, prefix tokens first, then h x w patches row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from refocus.errors import InputError


@runtime_checkable
class Readable(Protocol):
    """What refocus must know of a model to follow its relevance."""

    prefix: int  # tokens before the patches: class token, distillation token, registers

    def attention_maps(self) -> AbstractContextManager[list[Tensor]]:
        """Within the `with`, each forward pass fills the list with its maps.

        First layer first, each `[B, H, N, N]`.
        """
        ...

    def readout(self, tokens: int) -> Tensor:
        """How the classifier reads the last tokens, as weights `[N]` that sum to 1."""
        ...

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches per column and row of an input of this size."""
        ...


@dataclass(frozen=True)
class View:
    """A model as its family reads it: `Readable` but for the maps.

    These `attention.attention_maps` records for all families.

    blocks: in their order, for `last_blocks` and `lora` of a recipe. branches: attention layers
        that read the same tokens side by side. patch: rows and columns of pixels of a patch.
    """

    prefix: int
    grid: Callable[[int, int], tuple[int, int]]
    readout: Callable[[int], Tensor]
    blocks: list[nn.Module]
    branches: int = 1
    patch: tuple[int, int] | None = None


def class_token(tokens: int) -> Tensor:
    """The answer is read from the first token alone: weights `[N]`."""
    return _weights(tokens, {0: 1.0})


def two_tokens(tokens: int) -> Tensor:
    """The mean of two heads, on the class and on the distillation token."""
    return _weights(tokens, {0: 0.5, 1: 0.5})


def mean_from(first: int) -> Callable[[int], Tensor]:
    """The mean of all tokens from position `first` on."""
    return lambda tokens: _weights(
        tokens, dict.fromkeys(range(first, tokens), 1 / (tokens - first))
    )


def class_and_mean(first: int) -> Callable[[int], Tensor]:
    """The class token beside the mean of the patches, as DINOv2's linear classifier takes them.

    How much of the logit is whose differs by image; the halves weigh the same here.
    """
    return lambda tokens: (class_token(tokens) + mean_from(first)(tokens)) / 2


def _weights(tokens: int, at: dict[int, float]) -> Tensor:
    # 1/n exact enough for a float64 model; the caller narrows it
    weights = torch.zeros(tokens, dtype=torch.float64)
    weights[list(at)] = torch.tensor(list(at.values()), dtype=torch.float64)
    return weights


USE = (
    "use a plain Vision Transformer (`refocus models` lists the families), or describe yours "
    "(docs/extending.md)"
)


def unsupported(model: nn.Module, reason: str) -> InputError:
    """The error for a model of no family, with the reason and what is supported."""
    return InputError(f"{type(model).__name__}: {reason}; {USE}")
