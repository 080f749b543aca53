"""The answers that the do-no-harm rule reads, and the line they lie on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import refocus
from refocus.data import shifts
from refocus.data.folders import folder_samples
from refocus.data.swaps import other_class_donors, swap_backgrounds
from refocus.data.transforms import joint_transform
from refocus.objectives.by_name import objective
from refocus.relevance.gae import explain
from refocus.tuning.checks import (
    answers,
    interpolate,
    relevance_loss,
    right_answers,
    unseen_answers,
)


def test_interpolation_is_exact_at_the_ends_and_leaves_integers() -> None:
    start = {"w": torch.tensor([0.1, 0.2]), "n": torch.tensor(3)}
    end = {"w": torch.tensor([0.3, 1.0]), "n": torch.tensor(5)}
    assert torch.equal(interpolate(start, end, 0.0)["w"], start["w"])
    assert torch.equal(interpolate(start, end, 1.0)["w"], end["w"])
    middle = interpolate(start, end, 0.25)
    torch.testing.assert_close(middle["w"], torch.tensor([0.15, 0.4]))
    assert middle["n"] == 3


def checked(tiny: Callable[..., nn.Module]) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A model that is right on 30 of 40 images."""
    model = tiny()
    images, masks = torch.randn(40, 3, 32, 32), torch.zeros(40, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1
    labels = explain(model, images).targets.clone()
    labels[:10] = (labels[:10] + 1) % 4
    return model, images, masks, labels


def test_answers_and_loss_are_those_of_the_model(tiny: Callable[..., nn.Module]) -> None:
    model, images, masks, labels = checked(tiny)
    plain, swapped = right_answers(model, images, masks, labels)
    assert plain.tolist() == [False] * 10 + [True] * 30
    all_object = torch.ones_like(masks) - 1e-6  # then a swap changes nothing
    assert torch.equal(right_answers(model, images, all_object, labels)[1], plain.float())
    expected = torch.zeros(40)
    for seed in range(8):  # 40 images: 8 swaps each
        donors = other_class_donors(labels, seed=seed)
        moved = swap_backgrounds(images, masks, images[donors], masks[donors])
        expected += (explain(model, moved).targets == labels) / 8
    torch.testing.assert_close(swapped, expected)
    terms = objective("relevance", relevance=1.0, classification=0.0)
    assert relevance_loss(model, images, masks, labels) == pytest.approx(
        terms(model, images, masks, labels)["loss"].item(), rel=1e-4
    )


def test_answers_are_those_of_each_weights(tiny: Callable[..., nn.Module]) -> None:
    model, images, masks, labels = checked(tiny)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    end = tiny().state_dict()
    plain, swapped = answers(model, [start, end], images, masks, labels)
    assert plain.shape == swapped.shape == (2, 40)
    assert plain[0].mean() == 0.75
    assert np.array_equal(plain[1], right_answers(model, images, masks, labels)[0].numpy())
    assert not np.array_equal(plain[0], plain[1])
    assert torch.equal(model.state_dict()["head.weight"], end["head.weight"])


def test_unseen_shifts_are_answered_by_each_weights(
    model_folder: Path, image_folders: tuple[Path, Path]
) -> None:
    model = refocus.load(model_folder)
    samples = folder_samples(*image_folders)
    same = {k: v.clone() for k, v in model.state_dict().items()}
    other = {
        k: v + (0.5 * torch.randn_like(v) if v.is_floating_point() else 0) for k, v in same.items()
    }
    transform = joint_transform(model, train=False)
    files = [samples[0].image]
    found = unseen_answers(model, [same, other, same], samples, transform, files)
    assert set(found) == {"blurred", "plain", "moved", "real"}
    for kind, rows in found.items():
        assert rows.shape == (3, 24)
        assert np.array_equal(rows[0], rows[2])
        ((shift, _),) = shifts.shifts(samples, kind, 0, backgrounds=files)
        first = transform(shift(samples[5]))[None]
        assert rows[2, 5] == float(explain(model, first).targets[0] == samples[5].label)
    assert set(unseen_answers(model, [same], samples[:3], transform)) == set(shifts.UNSEEN)
