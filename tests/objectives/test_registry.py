"""Each objective: its mask term moves the weights, a few steps do what it promises, and a baseline
does not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import refocus
from refocus.evaluation.metrics import background_share
from refocus.objectives import losses
from refocus.objectives.registry import OBJECTIVES
from refocus.relevance.attention import attention_maps
from refocus.relevance.gae import minmax, relevance_patches, upsample
from refocus.relevance.legrad import legrad_patches

Build = Callable[..., nn.Module]
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
}
BY_MAP = (
    "relevance",
    "relevance-exact",
    "energy",
    "refocus",
)  # terms on the map that background_share measures
BY_GRADIENT = {"gradmask": losses.gradmask, "rrr": losses.right_reasons}


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
    expected = (
        0.5 * (3 * terms["background"] + 0.3 * terms["foreground"]) + 0.2 * terms["classification"]
    )
    torch.testing.assert_close(terms["loss"], expected)


def test_relevance_is_that_of_the_true_class_and_confidence_of_the_predicted(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), batch()
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
        return refocus.objective("energy", second_order=second_order)(model, images, masks, labels)[
            "energy"
        ]

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


@pytest.mark.parametrize("name", BY_MAP)
def test_a_few_steps_move_relevance_off_the_background_and_plain_finetuning_does_not(
    tiny: Build, name: str
) -> None:
    images, masks, labels = batch(8)
    images = images + 3 * masks  # an object that can be told from its background

    def change(objective: str) -> float:
        torch.manual_seed(0)
        model = tiny()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        step = refocus.objective(objective)
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
    model, (images, masks, _) = tiny(), batch()
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
    model, (images, masks, labels) = tiny(), batch()
    given = refocus.objective("refocus", seen=[0, 1])(
        model, images, masks, labels
    )  # labels 0..3: all are compared
    torch.testing.assert_close(
        given["classification"],
        refocus.objective("refocus")(model, images, masks, labels)["classification"],
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
    with pytest.raises(
        refocus.InputError, match=r"relevanse.*legal are relevance, relevance-exact"
    ):
        refocus.objective("relevanse")
    with pytest.raises(
        refocus.InputError, match=r"--second-order: objective 'finetune' does not read it"
    ):
        refocus.objective("finetune", second_order=True)
    with pytest.raises(
        refocus.InputError, match=r"--temperature: objective 'energy' does not read it"
    ):
        refocus.objective("energy", temperature=0.5)
    with pytest.raises(
        refocus.InputError, match=r"no such term; its terms are background, foreground"
    ):
        refocus.objective("relevance", energy=1.0)


def test_a_few_steps_of_bce_fit_the_map_to_the_mask_and_plain_finetuning_does_not(
    tiny: Build,
) -> None:
    images, masks, labels = batch(8)
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


# --- input gradients ----------------------------------------------------------------------------


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
    model, given = tiny(), batch()
    terms = refocus.objective(name)(model, *given)
    assert terms["background"].item() == pytest.approx(
        outside_gradient(model, name, *given), rel=1e-4
    )
    published = refocus.objective(f"{name}-as-published")(model, *given)
    torch.testing.assert_close(published["background"], terms["background"].detach())


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_as_published_the_mask_trains_nothing(tiny: Build, name: str) -> None:
    """Negative control: other masks, the same gradients; with a real double backward they
    differ.
    """
    images, masks, labels = batch()

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
    images, masks, labels = batch(8)

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


# --- LeGrad -------------------------------------------------------------------------------------


def test_legrad_is_the_mean_over_blocks_of_positive_attention_gradients(tiny: Build) -> None:
    """A literal twin: for each block a forward pass of its own, the classifier on that block's
    tokens.
    """
    model, (images, _, labels) = tiny().double(), batch()
    images = images.double()
    _, found = legrad_patches(model, images, labels, create_graph=False)
    maps = []
    for depth in range(len(model.blocks)):
        with attention_maps(model) as recorded:
            tokens: list[Tensor] = []
            handle = model.blocks[depth].register_forward_hook(
                lambda _m, _a, out, tokens=tokens: tokens.append(out)
            )
            model(images)
            handle.remove()
        score = model.head(model.norm(tokens[0])[:, 0])[torch.arange(4), labels].sum()
        (gradient,) = torch.autograd.grad(score, recorded[depth])
        maps.append(gradient.relu().mean((1, 2))[:, 1:])
    torch.testing.assert_close(found.flatten(1), torch.stack(maps).mean(0))


def test_a_few_steps_move_legrad_onto_the_object(tiny: Build) -> None:
    images, masks, labels = batch(8)
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


# --- regularizers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_any_objective_takes_the_regularizers(tiny: Build, name: str) -> None:
    model, given = tiny(), batch()
    original = tiny()
    weights = {"confidence": 0.5, "labels": 0.25, "kl": 2.0, "l2_sp": 3.0}
    terms = refocus.objective(name, original=original, **weights)(model, *given)
    plain = refocus.objective(name)(model, *given)
    added = sum(weight * terms[term] for term, weight in weights.items())
    torch.testing.assert_close(terms["loss"], plain["loss"] + added)
    torch.testing.assert_close(terms["labels"], losses.classification(model(given[0]), given[2]))
    terms["loss"].backward()
    assert all(p.grad is None for p in original.parameters())


def test_distances_to_the_original_are_zero_there_and_hold_the_model(tiny: Build) -> None:
    original, (images, masks, labels) = tiny(), batch(8)

    def moved(**weights: float) -> tuple[float, float]:
        model = tiny()
        model.load_state_dict(original.state_dict())
        step = refocus.objective("finetune", original=original, **weights)
        first = step(model, images, masks, labels)
        assert all(abs(first[term].item()) < 1e-6 for term in weights)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(20):
            optimizer.zero_grad()
            step(model, images, masks, labels)["loss"].backward()
            optimizer.step()
        pairs = zip(model.parameters(), original.parameters(), strict=True)
        weights_moved = sum((a - b).square().sum().item() for a, b in pairs)
        return weights_moved, losses.distance_to_teacher(model(images), original(images)).item()

    free, by_kl, by_weights = moved(), moved(kl=10.0), moved(l2_sp=10.0)
    assert by_kl[1] < 0.3 * free[1]
    assert by_weights[0] < 0.3 * free[0]


def test_distance_to_the_original_needs_one() -> None:
    with pytest.raises(refocus.InputError, match=r"'kl' needs `original`"):
        refocus.objective("finetune", kl=1.0)
