"""Attacks stay within their budget, in pixel space, with the normalization inside.

And the field's sanity checks.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from refocus import load
from refocus.data.folders import scan
from refocus.data.images import read_image
from refocus.data.transforms import eval_image
from refocus.probes import perturbed
from refocus.probes.batch import Batch, answers
from refocus.probes.tools import attacks
from refocus.probes.tools.perturbations import boxes
from refocus.relevance.answers import logits_of
from tests.makers import Build


class Linear(nn.Module):
    """Logits are linear in pixels, so that what an attack must do is known."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, pixels: Tensor) -> Tensor:
        score = (pixels * self.weight).sum((1, 2, 3))
        return torch.stack([score, -score], dim=1)


@pytest.fixture
def linear() -> tuple[Linear, Tensor, Tensor]:
    return (
        Linear(torch.randn(3, 8, 8)),
        torch.rand(4, 3, 8, 8) * 0.6 + 0.2,
        torch.tensor([0, 1, 0, 1]),
    )


def test_fgsm_is_one_step_along_the_sign(linear: tuple[Linear, Tensor, Tensor]) -> None:
    model, pixels, labels = linear
    changed = attacks.fgsm(model, model, pixels, labels, 0.05)
    direction = torch.where(labels == 0, -1.0, 1.0).view(4, 1, 1, 1) * model.weight.sign()
    torch.testing.assert_close(changed, pixels + 0.05 * direction)


def test_pgd_ends_in_the_corner_of_its_ball_and_the_loss_rises(
    linear: tuple[Linear, Tensor, Tensor],
) -> None:
    model, pixels, labels = linear
    changed, losses = attacks.pgd(model, model, pixels, labels, 0.05, [1, 2, 3, 4])
    direction = torch.where(labels == 0, -1.0, 1.0).view(4, 1, 1, 1) * model.weight.sign()
    torch.testing.assert_close(changed, pixels + 0.05 * direction)
    assert losses.shape == (4, attacks.STEPS + 1)
    assert (losses.diff(dim=1) >= -1e-5).all()
    assert (losses[:, -1] > losses[:, 0]).all()


def test_pixels_stay_in_their_range_and_weights_get_no_gradient(
    linear: tuple[Linear, Tensor, Tensor],
) -> None:
    model, pixels, labels = linear
    changed, _ = attacks.pgd(model, model, pixels, labels, 0.5, [1, 2, 3, 4])
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert float((changed - pixels).abs().max()) <= 0.5 + 1e-6
    assert model.weight.grad is None
    assert model.weight.requires_grad


def test_a_random_start_follows_from_the_seed_of_the_image(
    linear: tuple[Linear, Tensor, Tensor],
) -> None:
    model, pixels, labels = linear
    _, every = attacks.pgd(model, model, pixels, labels, 0.05, [1, 2, 3, 4], steps=1)
    _, last = attacks.pgd(model, model, pixels[3:], labels[3:], 0.05, [4], steps=1)
    _, other = attacks.pgd(model, model, pixels[3:], labels[3:], 0.05, [5], steps=1)
    torch.testing.assert_close(every[3:], last)
    assert not torch.allclose(last[:, 0], other[:, 0])


def test_a_patch_attack_changes_its_square_alone_and_takes_any_colour(
    linear: tuple[Linear, Tensor, Tensor],
) -> None:
    model, pixels, labels = linear
    where = boxes((8, 8), 0.25, [1, 2, 3, 4])
    changed, _ = attacks.pgd(model, model, pixels, labels, 1.0, [1, 2, 3, 4], steps=20, where=where)
    assert torch.equal(changed * (1 - where), pixels * (1 - where))
    inside = changed[where.expand_as(changed) > 0]
    assert torch.isin(
        inside, torch.tensor([0.0, 1.0])
    ).all()  # of a linear model the best colours are the extremes


def batch(model: nn.Module, pixels: Tensor, labels: Tensor) -> Batch:
    return Batch(model, pixels, labels, list(range(len(pixels))), [], Path())


def test_the_models_own_normalization_is_inside(tiny: Build) -> None:
    model, pixels = tiny(), torch.rand(3, 3, 32, 32)
    model.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    found = batch(model, pixels, torch.zeros(3, dtype=torch.long)).logits(pixels)
    by_hand = (pixels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.4, 0.5, 0.6]
    ).view(3, 1, 1)
    torch.testing.assert_close(found, model(by_hand))
    changed, _ = attacks.pgd(
        model,
        batch(model, pixels, None).logits,
        pixels,
        torch.zeros(3, dtype=torch.long),
        2 / 255,
        [1, 2, 3],
    )
    assert float((changed - pixels).abs().max()) == pytest.approx(
        2 / 255, abs=1e-6
    )  # of pixels, not of normalized ones


@pytest.mark.slow
@pytest.mark.shared
def test_sanity_checks_of_the_field_on_a_real_model(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budget 0 changes nothing, more hurts more, a large one leaves nothing.

    Ten steps do more than one.
    """
    monkeypatch.setattr(perturbed, "BUDGETS", (0, 0.5, 8))
    model = load(shared / "models" / "vit_small_caltech100")
    samples = scan(shared / "data" / "caltech100" / "test", model)[:30:10]
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = torch.stack([eval_image(model)(read_image(s.image)) for s in samples]) * std + mean
    b = batch(model, pixels.clamp(0, 1), torch.tensor([s.label for s in samples]))
    with torch.no_grad():
        plain = (logits_of(model, (pixels - mean) / std).argmax(1) == b.labels).float()
    one, ten = answers(b, perturbed.fgsm)["FGSM"], answers(b, perturbed.pgd)["PGD"]
    assert torch.equal(one[:, 0], plain)
    assert torch.equal(ten[:, 0], plain)
    assert (one.mean(0).diff() <= 0).all()
    assert (ten.mean(0).diff() <= 0).all()
    assert (ten.mean(0) <= one.mean(0)).all()
    assert one[:, 0].sum() == 3
    assert ten[:, 2].sum() == 0


@pytest.mark.parametrize("budget", [1 / 255, 0.1])
def test_captums_attacks_take_the_same_steps(
    budget: float, linear: tuple[Linear, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An independent twin, from the image itself, as captum draws one start for a batch."""
    robust = pytest.importorskip("captum.robust")
    _, pixels, labels = linear
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3)).eval()
    loss = nn.CrossEntropyLoss(reduction="none")
    one = robust.FGSM(model, loss, lower_bound=0, upper_bound=1)
    theirs = one.perturb(pixels.clone().requires_grad_(), budget, labels)
    assert torch.equal(attacks.fgsm(model, model, pixels, labels, budget), theirs)
    monkeypatch.setattr(attacks, "_start", lambda pixels, *_: pixels)
    ours, _ = attacks.pgd(model, model, pixels, labels, budget, [0] * 4)
    many = robust.PGD(model, loss, lower_bound=0, upper_bound=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of captum, about its own copies
        theirs = many.perturb(pixels.clone(), budget, 2.5 * budget / 10, 10, labels)
    torch.testing.assert_close(ours, theirs)
