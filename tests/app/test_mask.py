"""The mask editor."""

from __future__ import annotations

import pytest
import torch

from tests.app.makers import GRADIO


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(40, 36), (30, 50), (301, 199), (1000, 640)])
def test_a_mask_goes_through_the_editor_unchanged(size: tuple[int, int]) -> None:
    from refocus.app.mask import layer, painted

    mask = torch.zeros(1, size[1], size[0])
    mask[:, size[1] // 4 : size[1] // 2, size[0] // 5 : size[0] // 2] = 1
    found = painted({"layers": [layer(mask, size)]}, size)
    truth = mask[0].numpy() > 0
    assert found.shape == truth.shape
    assert (found & truth).sum() / (found | truth).sum() > 0.97
    assert not painted({"layers": [layer(None, size)]}, size).any()
