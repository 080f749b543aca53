"""A teacher that follows its student: the running mean of the weights that are trained.

Source: Tarvainen and Valpola, NeurIPS 2017.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from refocus.errors import InputError
from refocus.relevance.answers import logits_of
from refocus.vit.inputs import check_model


class MeanTeacher:
    """Answers as the running mean of a student's weights; at first as the student does.

    lag: of how many steps the mean is; each step it takes 1 / lag of the student.

    Raises:
        InputError: a lag below 1.
    """

    def __init__(self, student: nn.Module, lag: float) -> None:
        if not lag >= 1:
            raise InputError(f"lag: {lag}; must be a number of steps, 1 or more")
        check_model(student, "student")
        self.lag = lag
        self.model = deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """Take a step towards the student; call it after each step of the optimizer."""
        for kept, now in zip(self.model.parameters(), student.parameters(), strict=True):
            kept.lerp_(now.to(kept), 1 / self.lag)
        for kept, now in zip(self.model.buffers(), student.buffers(), strict=True):
            kept.copy_(now)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits `[B, K]` of normalized images `[B, 3, H, W]`."""
        return logits_of(self.model, images)

    def state_dict(self) -> dict[str, Any]:
        """The mean, for a checkpoint."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state)
