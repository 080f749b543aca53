"""The maths of the probes that give numbers of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from refocus.probes import numbers, registry
from tests.makers import Build
from tests.probes.makers import batch


def test_class_tokens_end_with_the_model_itself(tiny: Build) -> None:
    b = batch(tiny(), 8)
    found = numbers.class_tokens(b)
    assert torch.equal(found["this block"][:, -1], b.clean)
    assert torch.equal(found["mean of this and all later blocks"][:, -1], b.clean)
    model = tiny()
    model.load_state_dict(b.model.state_dict())
    model.blocks = model.blocks[:1]
    early = (model(b.normalized(b.pixels)).argmax(1) == b.labels).float()
    assert torch.equal(found["this block"][:, 0], early)


def test_surgery_asks_each_block_once(tiny: Build) -> None:
    b = batch(tiny(), 8)
    found = numbers.surgery(b)
    assert list(found) == ["block", "attention", "mlp"]
    assert registry.PROBES["surgery"].levels_of(b.model) == ["none", "1", "2", "3"]
    model = tiny()
    model.load_state_dict(b.model.state_dict())
    model.blocks = nn.Sequential(model.blocks[0], model.blocks[2])
    assert torch.equal(
        found["block"][:, 2], (model(b.normalized(b.pixels)).argmax(1) == b.labels).float()
    )


@pytest.mark.parametrize("mass", [0.3, 0.6, 0.9, 1.0])
def test_the_fewest_patches_that_hold_the_mass(mass: float) -> None:
    attended = torch.rand(5, 16).softmax(-1)
    inside = numbers.covering(attended, mass)
    held = (attended * inside).sum(-1)
    assert (held >= mass - 1e-5).all()
    least = attended.masked_fill(~inside, 2).min(-1).values
    assert (held - least < mass).all()  # without the least of them it would not be enough


def test_attention_that_lies_on_the_object_has_a_jaccard_index_of_one(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = torch.zeros(2, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1  # four of sixteen patches
    on, off = torch.zeros(16), torch.zeros(16)
    on[[5, 6, 9, 10]], off[[0, 3, 12, 15]] = 0.25, 0.25
    monkeypatch.setattr(
        numbers, "attention_of_readout", lambda *_: torch.stack([on, off]).expand(2, 2, 16)
    )
    found = numbers.attention_segmentation(batch(tiny(), 2, masks=masks))
    assert found["90% of the attention"].tolist() == [[1, 0, 1]] * 2  # two heads, and the best
    assert found["60% of the attention"].tolist() == [[0.75, 0, 0.75]] * 2


def test_attention_is_compared_with_the_pixels_that_its_patches_see(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = torch.zeros(2, 1, 38, 38)
    masks[..., 24:32] = 1  # the last column of patches of 8; 6 pixels are in none
    masks[..., 32:, :] = 0
    last = torch.eye(4)[3].repeat(4) / 4
    monkeypatch.setattr(numbers, "attention_of_readout", lambda *_: last.expand(2, 1, 16))
    b = replace(batch(tiny(img_size=38), 2, masks=masks), pixels=torch.rand(2, 3, 38, 38))
    assert numbers.attention_segmentation(b)["90% of the attention"].tolist() == [[1, 1]] * 2


def test_random_classes_are_others_and_follow_from_the_seed() -> None:
    found = numbers.random_classes(3, 10, 1)
    assert len(set(found)) == 5
    assert 3 not in found
    assert found == numbers.random_classes(3, 10, 1) != numbers.random_classes(3, 10, 2)
