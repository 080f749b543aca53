"""Sufficient subsets of pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from refocus.probes.tools.subsets import CONFIDENCE, sufficient_subsets
from tests.makers import Build


def test_sufficient_subsets_are_sufficient_and_small(tiny: Build) -> None:
    """A model that looks at one corner.

    That corner alone suffices, and a class it never answers is not reached.
    """

    class Corner(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen = images[:, 0, :4, :4].sum((1, 2))
            return torch.stack([seen, torch.zeros_like(seen), torch.full_like(seen, -50.0)], 1)

    images = torch.ones(2, 3, 16, 16)
    found = sufficient_subsets(Corner(), images, torch.tensor([0, 2]), rounds=64)
    assert found.found.tolist() == [True, False]
    assert found.confidence[0] >= CONFIDENCE
    assert found.pixels[0, :4, :4].sum() == found.pixels[0].sum() <= 8
    again = Corner()(images[:1] * found.pixels[:1, None]).softmax(1)[0, 0]
    assert again.item() == pytest.approx(found.confidence[0].item())
