"""Rotation prediction: as a probe of features, and as an auxiliary task."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import refocus
from refocus.objectives import rotations
from refocus.relevance.answers import last_linear_input
from tests.makers import Build


def test_turns_are_quarter_turns() -> None:
    images = torch.rand(2, 3, 4, 4)
    found = rotations.turned(images)
    assert torch.equal(found[:2], images)
    assert torch.equal(found[2:4], images.rot90(1, (2, 3)))
    assert torch.equal(found[6:].rot90(1, (2, 3)), images)
    with pytest.raises(refocus.InputError, match="must be square"):
        rotations.turned(torch.rand(1, 3, 4, 6))


def test_a_head_finds_turns_that_the_features_hold_and_no_others() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(40, 4, 12))
    assert rotations.held_out(noise).mean() < 0.4  # chance is 0.25
    assert rotations.held_out(noise + 5 * np.eye(4, 12)).mean() == 1
    assert np.isnan(rotations.held_out(noise[:1])).all()


def test_the_head_never_sees_the_image_it_is_asked_of() -> None:
    """Each image has turns of its own kind.

    Who had seen it would know them; other images say nothing.
    """
    rng = np.random.default_rng(0)
    own = rng.normal(
        size=(30, 4, 400)
    )  # more dimensions than rows: all of what was seen can be told apart
    assert rotations.held_out(own).mean() < 0.4


def test_the_loss_is_low_where_turns_can_be_told() -> None:
    noise = torch.randn(32, 16)
    told = noise + 8 * torch.nn.functional.one_hot(torch.arange(4).repeat_interleave(8), 16)
    assert rotations.loss(told) < 0.7
    assert rotations.loss(noise) > 1.1
    assert rotations.loss(noise[::8]).item() == pytest.approx(
        math.log(4)
    )  # one image: nobody to learn from


def test_a_few_steps_with_the_term_make_turns_easier_to_tell(tiny: Build) -> None:
    model, images = tiny(), torch.randn(8, 3, 32, 32) + torch.linspace(-2, 2, 32).view(32, 1)
    masks, labels = torch.ones(8, 1, 32, 32), torch.arange(8) % 4

    def turns_lost() -> float:
        with torch.no_grad():
            return float(rotations.loss(last_linear_input(model, rotations.turned(images))[1]))

    for weight, falls in ((0.0, False), (1.0, True)):
        step = refocus.objective("finetune", classification=0.0, rotation=weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        before = turns_lost()
        for _ in range(10):
            terms = step(model, images, masks, labels)
            assert ("rotation" in terms) == falls
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
        assert (turns_lost() < before - 0.02) == falls
