"""The mask editor."""

from __future__ import annotations

import numpy as np
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


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(40, 36), (431, 150), (200, 1093), (1093, 231), (2000, 1501)])
def test_opening_and_saving_leaves_what_nobody_painted(size: tuple[int, int]) -> None:
    from refocus.app.mask import layer, painted

    mask = torch.zeros(1, size[1], size[0])
    mask[:, size[1] // 4 : size[1] // 2, size[0] // 5 : size[0] // 2] = 1
    truth, drawn = mask[0].numpy() > 0, layer(mask, size)
    first = found = painted({"layers": [drawn]}, size)
    for _ in range(3):  # the mask does not wander, also if what it was is not known
        found = painted({"layers": [layer(torch.from_numpy(found[None]).float(), size)]}, size)
    assert np.array_equal(found, first)
    assert (found & truth).sum() / (found | truth).sum() > 0.96
    assert np.array_equal(painted({"layers": [drawn]}, size, mask), truth)
    stroke = torch.zeros_like(mask)
    stroke[:, -size[1] // 5 :, -size[0] // 4 :] = 1
    both = painted({"layers": [drawn, layer(stroke, size)]}, size, mask)
    upper = slice(size[1] * 3 // 4)
    assert np.array_equal(both[upper], truth[upper])
    assert both[-1, -1]
