"""The answers that the do-no-harm rule reads, and the line they lie on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import refocus
from refocus import Recipe
from refocus.data import shifts
from refocus.data.folders import folder_samples
from refocus.data.images import read_image
from refocus.data.swaps import other_class_pairs, swap_backgrounds
from refocus.data.transforms import eval_image, joint_transform, paper_image
from refocus.objectives.by_name import objective
from refocus.relevance.gae import explain
from refocus.tuning import conclude
from refocus.tuning.checks import (
    answers,
    interpolate,
    relevance_loss,
    right_answers,
    unseen_answers,
)
from refocus.tuning.harm import SHARES, candidates, choose, shortage, standing
from refocus.tuning.verdict import judge


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
    pairs = other_class_pairs(labels, seed=0)
    assert torch.equal(
        right_answers(model, images, all_object, labels)[1], plain[pairs].float().mean(1)
    )
    expected = torch.zeros(len(pairs))
    for own, other in (pairs.T, pairs.flip(1).T):
        moved = swap_backgrounds(images[own], masks[own], images[other], masks[other])
        expected += (explain(model, moved).targets == labels[own]) / 2
    torch.testing.assert_close(swapped, expected)
    terms = objective("relevance", relevance=1.0, classification=0.0)
    assert relevance_loss(model, images, masks, labels) == pytest.approx(
        terms(model, images, masks, labels)["loss"].item(), rel=1e-4
    )


def test_one_class_alone_shows_no_gain(tiny: Callable[..., nn.Module]) -> None:
    model, images, masks, labels = checked(tiny)
    weights = [model.state_dict()] * 3
    plain, swapped = answers(model, weights, images, masks, torch.zeros_like(labels))
    assert swapped.shape == (3, 0)
    found = candidates((0.0, 0.5, 1.0), plain, swapped, 1.0)
    assert not any(c.stands for c in found)
    short = shortage(plain, swapped, 1.0)
    assert short.images is None
    verdict = judge(found, 0, 1.0, short, {})
    assert "the check images are of one class" in verdict.sentence


def test_answers_are_those_of_each_weights(tiny: Callable[..., nn.Module]) -> None:
    model, images, masks, labels = checked(tiny)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    end = tiny().state_dict()
    plain, swapped = answers(model, [start, end], images, masks, labels)
    assert plain.shape == (2, 40)
    assert swapped.shape == (2, len(other_class_pairs(labels, seed=0)))
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


class ByBackground(nn.Module):
    """Tuned weights are right by the background alone, half of the time, as the original is.

    Red is the class in the object; green tells the background and is the object's own in an image
    as it is, which tuned weights always get right and the original four times in five (blue).
    """

    def __init__(self) -> None:
        super().__init__()
        self.tuned = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        labels, own, luck = images[:, :, 4, 4].T
        ground, tuned = images[:, 1, 0, 0], bool(self.tuned > 0)
        as_it_is = (own - ground).abs() < 1e-5
        swapped = ground < 0.5 if tuned else ground >= 0.5
        right = torch.where(as_it_is, (luck > 0.2) | tuned, swapped)
        named = torch.where(right, labels.round().long(), (labels.round().long() + 1) % 10)
        return nn.functional.one_hot(named, 10).float()


@pytest.mark.parametrize("few", [5, 1], ids=["classes alike", "a small class"])
def test_backgrounds_that_decide_are_no_gain(few: int) -> None:
    """Were a background borrowed by several images, a quarter of these runs would be kept."""
    model, weights = ByBackground(), [{"tuned": torch.tensor([float(a)])} for a in SHARES]
    rng, kept, runs = torch.Generator().manual_seed(0), 0, 200
    labels = torch.arange(50) % 10 if few == 5 else (torch.arange(50) < few).long()
    masks = torch.zeros(50, 1, 8, 8)
    masks[:, :, 2:6, 2:6] = 1
    for _ in range(runs):
        ground, luck = torch.rand(2, 50, generator=rng)
        objects = torch.stack([labels.float(), ground, luck], 1)[:, :, None, None]
        images = torch.zeros(50, 3, 8, 8)
        images[:, 1] = ground[:, None, None]
        found = answers(model, weights, images * (1 - masks) + objects * masks, masks, labels)
        kept += choose(standing(*found, 1.0)) > 0
    assert kept / runs <= 0.08  # 5 % and twice its standard error


def test_the_rule_sees_images_as_the_saved_model_will(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the protocol by which it was tuned."""
    model = refocus.load(recipe.model)
    model.pretrained_cfg["mean"] = (0.2, 0.3, 0.4)
    samples = folder_samples(Path(recipe.images), Path(recipe.masks))
    seen = []
    for name in ("answers", "unseen_answers"):
        real = getattr(conclude, name)

        def spy(*given: Any, real: Any = real, **more: Any) -> Any:
            seen.append(given)
            return real(*given, **more)

        monkeypatch.setattr(conclude, name, spy)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    line = conclude.Line(weights, weights, (0.0, 1.0))
    conclude.check(replace(recipe, protocol="paper"), samples[:8], model, line)
    own, picture = eval_image(model), read_image(samples[0].image)
    (_, _, images, *_), (*_, transform, _) = seen
    torch.testing.assert_close(images[0], own(picture))
    torch.testing.assert_close(transform(picture), own(picture))
    assert not torch.allclose(images[0], paper_image(model)(picture))
