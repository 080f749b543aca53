"""Each objective: its mask term moves the weights, a few steps do what it promises, and a baseline does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import refocus
from refocus import losses
from refocus.metrics import background_share
from refocus.objectives import OBJECTIVES
from refocus.relevance import minmax, relevance_patches, upsample

Build = Callable[..., nn.Module]
MASK_TERMS = {"relevance": ("background", "foreground"), "energy": ("energy",), "refocus": ("energy",)}


def batch(count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    masks = torch.zeros(count, 1, 32, 32)
    masks[:, :, 8:24, 8:24] = 1
    return torch.randn(count, 3, 32, 32), masks, torch.arange(count) % 4


@pytest.mark.parametrize("name", OBJECTIVES)
def test_terms_are_finite_scalars_and_loss_is_among_them(tiny: Build, name: str) -> None:
    terms = refocus.objective(name)(tiny(), *batch())
    assert set(terms) - {"loss"} <= set(OBJECTIVES[name].weights)
    assert all(value.ndim == 0 and value.isfinite() for value in terms.values())


def test_the_published_sum(tiny: Build) -> None:
    terms = refocus.objective("relevance", background=3.0, relevance=0.5)(tiny(), *batch())
    expected = 0.5 * (3 * terms["background"] + 0.3 * terms["foreground"]) + 0.2 * terms["classification"]
    torch.testing.assert_close(terms["loss"], expected)


def test_relevance_is_that_of_the_true_class_and_confidence_of_the_predicted(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), batch()
    terms = refocus.objective("relevance")(model, images, masks, labels)
    e = refocus.explain(model, images, labels)
    torch.testing.assert_close(terms["background"].detach(), losses.background(e.relevance, masks[:, 0]))
    torch.testing.assert_close(terms["foreground"].detach(), losses.foreground(e.relevance, masks[:, 0]))
    torch.testing.assert_close(terms["classification"].detach(), losses.confidence(e.logits))


@pytest.mark.parametrize(("name", "term"), [(n, t) for n, ts in MASK_TERMS.items() for t in ts])
def test_the_mask_term_alone_moves_the_weights(tiny: Build, name: str, term: str) -> None:
    model = tiny()
    refocus.objective(name)(model, *batch())[term].backward()
    moved = [p for p in model.blocks.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert len(moved) > 20


def test_negative_control_a_detached_map_moves_nothing(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), batch()
    _, raw = relevance_patches(model, images, labels, create_graph=False)
    relevance = minmax(upsample(raw.detach(), (32, 32)))
    assert not losses.background(relevance, masks[:, 0]).requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_second_order_is_the_exact_derivative_and_the_published_one_is_not(tiny: Build) -> None:
    """Central differences in float64 along a random direction."""
    model = tiny().double()
    images, masks, labels = batch()
    images, masks = images.double(), masks.double()
    weight = model.blocks[0].attn.qkv.weight
    direction = torch.randn_like(weight)

    def energy(second_order: bool = False) -> Tensor:
        return refocus.objective("energy", second_order=second_order)(model, images, masks, labels)["energy"]

    slopes = []
    for second_order in (True, False):
        (gradient,) = torch.autograd.grad(energy(second_order), weight)
        slopes.append((gradient * direction).sum().item())
    with torch.no_grad():
        weight += 1e-6 * direction
    high = energy().item()
    with torch.no_grad():
        weight -= 2e-6 * direction
    measured = (high - energy().item()) / 2e-6
    assert slopes[0] == pytest.approx(measured, rel=1e-4)
    assert abs(slopes[1] - measured) > 0.05 * abs(measured)


@pytest.mark.parametrize("name", MASK_TERMS)
def test_a_few_steps_move_relevance_off_the_background_and_plain_finetuning_does_not(tiny: Build, name: str) -> None:
    images, masks, labels = batch(8)
    images = images + 3 * masks  # an object that can be told from its background

    def change(objective: str) -> float:
        torch.manual_seed(0)
        model = tiny()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        step = refocus.objective(objective)
        before = background_share(refocus.explain(model, images, labels).patches, masks[:, 0]).mean()
        for _ in range(30):
            optimizer.zero_grad()
            step(model, images, masks, labels)["loss"].backward()
            optimizer.step()
        return (background_share(refocus.explain(model, images, labels).patches, masks[:, 0]).mean() - before).item()

    assert change(name) < change("finetune") - 0.1
    assert change(name) < -0.04


def test_refocus_leaves_classes_it_was_not_given_alone(tiny: Build) -> None:
    model, (images, masks, _) = tiny(), batch()
    labels = torch.tensor([0, 1, 0, 1])
    refocus.objective("refocus", seen=[0, 1], energy=0.0)(model, images, masks, labels)["loss"].backward()
    assert torch.equal(model.head.weight.grad[2:], torch.zeros(2, 24))
    assert model.head.weight.grad[:2].abs().min() > 0
    model.zero_grad()
    refocus.objective("refocus", energy=0.0)(model, images, masks, labels)["loss"].backward()
    assert model.head.weight.grad[2:].abs().max() > 0


def test_refocus_on_classes_outside_seen_compares_with_them_too(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), batch()
    given = refocus.objective("refocus", seen=[0, 1])(model, images, masks, labels)  # labels 0..3: all are compared
    torch.testing.assert_close(
        given["classification"], refocus.objective("refocus")(model, images, masks, labels)["classification"]
    )


def test_the_temperature_divides_the_logits_of_the_confidence_term_alone(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), batch()
    terms = refocus.objective("relevance", temperature=0.5)(model, images, masks, labels)
    plain = refocus.objective("relevance")(model, images, masks, labels)
    torch.testing.assert_close(terms["background"], plain["background"])
    torch.testing.assert_close(terms["classification"], losses.confidence(model(images), 0.5))


def test_masks_may_come_without_a_channel_and_as_bool(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), batch()
    step = refocus.objective("relevance")
    expected = step(model, images, masks, labels)["loss"]
    torch.testing.assert_close(step(model, images, masks[:, 0].bool(), labels)["loss"], expected)


def test_unknown_names_are_answered_with_the_legal_ones() -> None:
    with pytest.raises(refocus.InputError, match=r"relevanse.*legal are relevance, relevance-exact"):
        refocus.objective("relevanse")
    with pytest.raises(refocus.InputError, match=r"--second-order: objective 'finetune' does not read it"):
        refocus.objective("finetune", second_order=True)
    with pytest.raises(refocus.InputError, match=r"--temperature: objective 'energy' does not read it"):
        refocus.objective("energy", temperature=0.5)
    with pytest.raises(refocus.InputError, match=r"no such term; its terms are background, foreground"):
        refocus.objective("relevance", energy=1.0)
