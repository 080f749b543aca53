"""Each objective: its terms are those of its paper, and its mask term moves the weights."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import refocus
from refocus.data.swaps import swap_backgrounds
from refocus.evaluation.metrics import background_share
from refocus.objectives import losses
from refocus.objectives.steps import (
    StepSettings,
    extent,
    refocus_step,
    relevance_step,
    swap_step,
    trained_logits,
)
from refocus.relevance.gae import minmax, relevance_patches, upsample
from refocus.relevance.legrad import legrad_patches
from tests.makers import Build, masked_batch, original_of

_BOTH = ("background", "foreground")
MASK_TERMS = {
    "relevance": _BOTH,
    "relevance-exact": _BOTH,
    "legrad": _BOTH,
    "gradmask": ("background",),
    "rrr": ("background",),
    "energy": ("energy",),
    "bce": ("bce",),
    "refocus": ("energy",),
    "consistency": ("energy",),
}
BY_MAP = (
    "relevance",
    "relevance-exact",
    "energy",
    "refocus",
    "consistency",
)  # terms on the map that background_share measures
BY_GRADIENT = {"gradmask": losses.gradmask, "rrr": losses.right_reasons}


def test_the_published_sum(tiny: Build) -> None:
    terms = refocus.objective("relevance", background=3.0, relevance=0.5)(tiny(), *masked_batch())
    expected = (
        0.5 * (3 * terms["background"] + 0.3 * terms["foreground"]) + 0.2 * terms["classification"]
    )
    torch.testing.assert_close(terms["loss"], expected)


def test_the_papers_complement_reaches_the_mask_term(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    soft = masks * 0.6
    (terms, _) = relevance_step(
        model, images, soft, labels, StepSettings(published_complement=True)
    )
    relevance = refocus.explain(model, images, labels).relevance
    outside = torch.where(soft[:, 0] == 0, 1.0, soft[:, 0])
    torch.testing.assert_close(terms["background"].detach(), (relevance * outside).square().mean())
    (ours, _) = relevance_step(model, images, soft, labels, StepSettings())
    torch.testing.assert_close(
        ours["background"].detach(), (relevance * (1 - soft[:, 0])).square().mean()
    )


def test_relevance_is_that_of_the_true_class_and_confidence_of_the_predicted(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    terms = refocus.objective("relevance")(model, images, masks, labels)
    e = refocus.explain(model, images, labels)
    torch.testing.assert_close(
        terms["background"].detach(), losses.background(e.relevance, masks[:, 0])
    )
    torch.testing.assert_close(
        terms["foreground"].detach(), losses.foreground(e.relevance, masks[:, 0])
    )
    torch.testing.assert_close(terms["classification"].detach(), losses.confidence(e.logits))


@pytest.mark.parametrize(("name", "term"), [(n, t) for n, ts in MASK_TERMS.items() for t in ts])
def test_the_mask_term_alone_moves_the_weights(tiny: Build, name: str, term: str) -> None:
    model = tiny()
    refocus.objective(name, **original_of(name, tiny()))(model, *masked_batch())[term].backward()
    moved = [p for p in model.blocks.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert len(moved) > 20


@pytest.mark.parametrize("name", ["relevance", "legrad", "energy", "bce", "refocus"])
def test_pixels_in_no_patch_move_no_mask_term(tiny: Build, name: str) -> None:
    model, whole = tiny(img_size=38), tiny(img_size=32)
    whole.load_state_dict(model.state_dict())
    images, masks, labels = masked_batch(1)  # alone: no swap, whose filling depends on the size
    padded = F.pad(images, (0, 6, 0, 6)), F.pad(masks, (0, 6, 0, 6)), labels
    step = refocus.objective(name)
    found, expected = step(model, *padded), step(whole, images, masks, labels)
    size = 1.0 if "energy" in found else 38**2 / 32**2  # the others are means over pixels
    border = {"bce": -(size - 1) * math.log(0.99)}  # of a map that is 0 there, kept off 0
    for term in MASK_TERMS[name]:
        torch.testing.assert_close(found[term] * size, expected[term] + border.get(term, 0.0))


def test_a_map_of_the_callers_that_is_none_of_patches_covers_the_image(tiny: Build) -> None:
    images = torch.zeros(1, 3, 38, 38)
    assert extent(tiny(img_size=38), torch.zeros(1, 38, 38), images) == ((38, 38), (38, 38))
    assert extent(nn.Identity(), torch.zeros(1, 4, 4), images) == ((38, 38), (38, 38))


def test_negative_control_a_detached_map_moves_nothing(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    _, raw = relevance_patches(model, images, labels, create_graph=False)
    relevance = minmax(upsample(raw.detach(), (32, 32)))
    assert not losses.background(relevance, masks[:, 0]).requires_grad
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_MAP)
def test_a_few_steps_move_relevance_off_the_background_and_plain_finetuning_does_not(
    tiny: Build, name: str
) -> None:
    images, masks, labels = masked_batch(8)
    images = images + 3 * masks  # an object that can be told from its background

    def change(objective: str) -> float:
        torch.manual_seed(0)
        model = tiny()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        step = refocus.objective(objective, **original_of(objective, tiny()))
        before = background_share(
            refocus.explain(model, images, labels).patches, masks[:, 0]
        ).mean()
        for _ in range(30):
            optimizer.zero_grad()
            step(model, images, masks, labels)["loss"].backward()
            optimizer.step()
        return (
            background_share(refocus.explain(model, images, labels).patches, masks[:, 0]).mean()
            - before
        ).item()

    assert change(name) < change("finetune") - 0.1
    assert change(name) < -0.04


def test_refocus_leaves_classes_it_was_not_given_alone(tiny: Build) -> None:
    model, (images, masks, _) = tiny(), masked_batch()
    labels = torch.tensor([0, 1, 0, 1])
    refocus.objective("refocus", seen=[0, 1], energy=0.0)(model, images, masks, labels)[
        "loss"
    ].backward()
    assert torch.equal(model.head.weight.grad[2:], torch.zeros(2, 24))
    assert model.head.weight.grad[:2].abs().min() > 0
    model.zero_grad()
    refocus.objective("refocus", energy=0.0)(model, images, masks, labels)["loss"].backward()
    assert model.head.weight.grad[2:].abs().max() > 0


def test_refocus_on_classes_outside_seen_compares_with_them_too(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    given = refocus.objective("refocus", seen=[0, 1])(
        model, images, masks, labels
    )  # labels 0..3: all are compared
    torch.testing.assert_close(
        given["classification"],
        refocus.objective("refocus")(model, images, masks, labels)["classification"],
    )


@pytest.mark.parametrize("choice", ["other classes", "neighbours"])
def test_swaps_take_backgrounds_of_other_classes_unless_asked_for_neighbours(
    tiny: Build, choice: Literal["other classes", "neighbours"]
) -> None:
    model, (images, masks, _) = tiny(), masked_batch()
    labels = torch.tensor([0, 0, 1, 1])
    donors = [[3, 3, 1, 1], [2, 2, 0, 0], [3, 3, 1, 1]]
    if choice == "neighbours":
        donors = [[3, 0, 1, 2], [2, 3, 0, 1], [1, 2, 3, 0]]
    swapped = [swap_backgrounds(images, masks, images[at], masks[at]) for at in donors]
    settings = StepSettings(donors=choice)
    (terms, _) = swap_step(model, images, masks, labels, settings)
    expected = losses.classification(model(swapped[0]), labels)
    torch.testing.assert_close(terms["classification"], expected)
    (terms, _) = refocus_step(model, images, masks, labels, settings)
    expected = losses.classification(model(torch.cat([images, *swapped])), labels.repeat(4))
    torch.testing.assert_close(terms["classification"], expected)


def test_consistency_holds_the_original_answer_on_image_and_swaps(tiny: Build) -> None:
    model, original, (images, masks, labels) = tiny(), tiny(), masked_batch()
    with torch.no_grad():
        model.head.bias += torch.randn_like(model.head.bias)
    terms = refocus.objective("consistency", original=original)(model, images, masks, labels)
    p = original(images).softmax(1)
    views = [images] + [
        swap_backgrounds(images, masks, images.roll(turn, 0), masks.roll(turn, 0))
        for turn in (1, 2, 3)
    ]
    by_hand = [(p * (p / model(view).softmax(1)).log()).sum(1).mean() for view in views]
    torch.testing.assert_close(terms["consistency"], torch.stack(by_hand).mean())
    other = refocus.objective("consistency", original=original)(model, images, masks, labels * 0)
    torch.testing.assert_close(other["loss"], terms["loss"])  # the labels are not read


def test_logits_that_train_are_the_same_with_maps_and_with_fused_attention(tiny: Build) -> None:
    model, images = tiny(), masked_batch()[0]
    assert model.blocks[0].attn.fused_attn
    with torch.autocast("cpu", torch.bfloat16):
        formed, fused = trained_logits(model, images), model(images)
    torch.testing.assert_close(formed, fused, atol=0.02, rtol=0.02)
    names = [type(node).__name__ for node in _graph(formed)]
    assert not any("ScaledDotProduct" in name for name in names)
    names = [type(node).__name__ for node in _graph(trained_logits(model, images))]
    assert any("ScaledDotProduct" in name for name in names)


def _graph(result: Tensor) -> set[Any]:
    """All nodes of the graph behind a result."""
    found: set[Any] = set()
    left = [result.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in found:
            found.add(node)
            left += [parent for parent, _ in node.next_functions]
    return found


def test_a_few_steps_of_bce_fit_the_map_to_the_mask_and_plain_finetuning_does_not(
    tiny: Build,
) -> None:
    images, masks, labels = masked_batch(8)
    images = images + 3 * masks

    def after(objective: str) -> float:
        torch.manual_seed(0)
        model = tiny()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        step = refocus.objective(objective)
        for _ in range(30):
            optimizer.zero_grad()
            step(model, images, masks, labels)["loss"].backward()
            optimizer.step()
        return losses.binary_relevance(
            refocus.explain(model, images, labels).relevance, masks[:, 0]
        ).item()

    assert after("bce") < 0.8 * after("finetune")


def outside_gradient(
    model: nn.Module, name: str, images: Tensor, masks: Tensor, labels: Tensor
) -> float:
    """The term by its definition, one image at a time."""
    values = []
    for image, mask, label in zip(images, masks, labels, strict=True):
        pixels = image[None].clone().requires_grad_()
        logits = model(pixels)
        score = logits[0, label] if name == "gradmask" else logits.softmax(1).log().sum()
        (gradient,) = torch.autograd.grad(score, pixels)
        outside = gradient[0] * (1 - mask)
        values.append(
            outside.square().sum().sqrt() if name == "gradmask" else outside.square().sum()
        )
    return torch.stack(values).mean().item()


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_the_term_is_that_of_the_paper(tiny: Build, name: str) -> None:
    model, given = tiny(), masked_batch()
    terms = refocus.objective(name)(model, *given)
    assert terms["background"].item() == pytest.approx(
        outside_gradient(model, name, *given), rel=1e-4
    )
    published = refocus.objective(f"{name}-as-published")(model, *given)
    torch.testing.assert_close(published["background"], terms["background"].detach())


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_as_published_the_mask_trains_nothing(tiny: Build, name: str) -> None:
    """Negative control: other masks, the same gradients.

    With a real double backward they differ.
    """
    images, masks, labels = masked_batch()

    def gradient(objective: str, masks: Tensor) -> Tensor:
        torch.manual_seed(0)
        model = tiny()
        refocus.objective(objective, background=1.0, classification=1.0)(
            model, images, masks, labels
        )["loss"].backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    assert not refocus.objective(f"{name}-as-published")(tiny(), images, masks, labels)[
        "background"
    ].requires_grad
    assert torch.equal(
        gradient(f"{name}-as-published", masks), gradient(f"{name}-as-published", 1 - masks)
    )
    assert not torch.allclose(gradient(name, masks), gradient(name, 1 - masks), rtol=1e-3)


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_a_few_steps_flatten_the_input_gradient_outside(tiny: Build, name: str) -> None:
    images, masks, labels = masked_batch(8)

    def ratio(objective: str) -> float:
        torch.manual_seed(0)
        model = tiny()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        weight = {"gradmask": 1.0, "rrr": 100.0}[
            name
        ]  # on this model RRR's term starts far below the cross-entropy
        step = refocus.objective(objective, background=weight, classification=1.0)
        before = outside_gradient(model, name, images, masks, labels)
        for _ in range(30):
            optimizer.zero_grad()
            step(model, images, masks, labels)["loss"].backward()
            optimizer.step()
        return outside_gradient(model, name, images, masks, labels) / before

    assert ratio(name) < 0.8
    assert ratio(name) < 0.8 * ratio(f"{name}-as-published")


def test_a_few_steps_move_legrad_onto_the_object(tiny: Build) -> None:
    images, masks, labels = masked_batch(8)
    images = images + 3 * masks
    model = tiny()

    def share() -> float:
        return (
            background_share(
                legrad_patches(model, images, labels, create_graph=False)[1].detach(), masks[:, 0]
            )
            .mean()
            .item()
        )

    before, optimizer, step = (
        share(),
        torch.optim.AdamW(model.parameters(), lr=3e-3),
        refocus.objective("legrad"),
    )
    for _ in range(30):
        optimizer.zero_grad()
        step(model, images, masks, labels)["loss"].backward()
        optimizer.step()
    assert share() < before - 0.04
