"""The table of objectives: terms, regularizers, options, and what is refused."""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import refocus
from refocus.objectives import losses
from refocus.objectives.by_name import step_of
from refocus.objectives.registry import OBJECTIVES
from refocus.objectives.steps import StepSettings
from refocus.relevance.gae import upsample
from tests.makers import Build, masked_batch, original_of


@pytest.mark.parametrize("name", OBJECTIVES)
def test_terms_are_finite_scalars_and_loss_is_among_them(tiny: Build, name: str) -> None:
    terms = refocus.objective(name, **original_of(name, tiny()))(tiny(), *masked_batch())
    assert set(terms) - {"loss"} <= set(OBJECTIVES[name].weights)
    assert all(value.ndim == 0 and value.isfinite() for value in terms.values())


def test_second_order_is_the_exact_derivative_and_the_published_one_is_not(tiny: Build) -> None:
    """Central differences in float64 along a random direction."""
    model = tiny().double()
    images, masks, labels = masked_batch()
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


def test_the_temperature_divides_the_logits_of_the_confidence_term_alone(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    terms = refocus.objective("relevance", temperature=0.5)(model, images, masks, labels)
    plain = refocus.objective("relevance")(model, images, masks, labels)
    torch.testing.assert_close(terms["background"], plain["background"])
    torch.testing.assert_close(terms["classification"], losses.confidence(model(images), 0.5))


def test_masks_may_come_without_a_channel_and_as_bool(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    step = refocus.objective("relevance")
    expected = step(model, images, masks, labels)["loss"]
    torch.testing.assert_close(step(model, images, masks[:, 0].bool(), labels)["loss"], expected)


def test_unknown_names_are_answered_with_the_legal_ones() -> None:
    with pytest.raises(
        refocus.InputError, match=r"relevanse.*choose one of relevance, relevance-exact"
    ):
        refocus.objective("relevanse")
    with pytest.raises(
        refocus.InputError, match=r"second_order: objective 'finetune' does not use it"
    ):
        refocus.objective("finetune", second_order=True)
    with pytest.raises(
        refocus.InputError, match=r"temperature: objective 'energy' does not use it"
    ):
        refocus.objective("energy", temperature=0.5)
    with pytest.raises(
        refocus.InputError, match=r"no such term; its terms are background, foreground"
    ):
        refocus.objective("relevance", energy=1.0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_any_objective_takes_the_regularizers(tiny: Build, name: str) -> None:
    model, given = tiny(), masked_batch()
    original = tiny()
    weights = {"confidence": 0.5, "labels": 0.25, "kl": 2.0, "l2_sp": 3.0}
    terms = refocus.objective(name, original=original, **weights)(model, *given)
    plain = refocus.objective(name, **original_of(name, original))(model, *given)
    added = sum(weight * terms[term] for term, weight in weights.items())
    torch.testing.assert_close(terms["loss"], plain["loss"] + added)
    torch.testing.assert_close(terms["labels"], losses.classification(model(given[0]), given[2]))
    terms["loss"].backward()
    assert all(p.grad is None for p in original.parameters())


def test_distances_to_the_original_are_zero_there_and_hold_the_model(tiny: Build) -> None:
    original, (images, masks, labels) = tiny(), masked_batch(8)

    def moved(**weights: float) -> tuple[float, float]:
        model = tiny()
        model.load_state_dict(original.state_dict())
        read: Any = {"original": original} if weights else {}
        step = refocus.objective("finetune", **read, **weights)
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


def test_distance_to_the_original_gives_no_gradient_to_what_no_pass_uses(tiny: Build) -> None:
    model = tiny()
    model.unused = torch.nn.Parameter(torch.ones(3))
    original = deepcopy(model)
    with torch.no_grad():
        model.head.weight.add_(0.1)
    term = refocus.objective("finetune", original=original, l2_sp=1.0)
    found = term(model, *masked_batch())
    assert found["l2_sp"].item() == pytest.approx(0.005 * model.head.weight.numel())
    found["loss"].backward()
    assert model.unused.grad is None  # several processes are told that it gets none
    assert model.head.weight.grad is not None


def test_distance_to_the_original_needs_one() -> None:
    with pytest.raises(refocus.InputError, match=r"'kl' needs `original`"):
        refocus.objective("finetune", kl=1.0)
    with pytest.raises(refocus.InputError, match=r"'consistency': it needs `original`"):
        refocus.objective("consistency")


def _with_adapter(model: Any) -> Any:
    model.adapter = torch.nn.Linear(2, 2)
    return model


_WRONG_ORIGINALS: dict[str, tuple[Any, str]] = {  # of the model, and of the term l2_sp alone
    "the model itself": (lambda model, build: model, "original: shares its weights with the"),
    "of its weights": (lambda model, build: copy(model), "original: shares its weights with the"),
    "wrapped": (lambda model, build: torch.nn.DataParallel(model), "original: shares its weights"),
    "other classes": (lambda model, build: build(num_classes=5), "original: 5 classes; must be 4"),
    "other blocks": (lambda model, build: build(depth=2), r"the weight blocks.2\S+ .* is missing"),
    "other widths": (
        lambda model, build: build(embed_dim=12),
        r"the weight cls_token \[1, 1, 24\] is \[1, 1, 12\] in it",
    ),
}


@pytest.mark.parametrize("case", _WRONG_ORIGINALS)
def test_the_original_is_another_model_of_the_same_form(tiny: Build, case: str) -> None:
    make, message = _WRONG_ORIGINALS[case]
    model = tiny()
    original = make(model, tiny)
    with pytest.raises(refocus.InputError, match=message):
        refocus.objective("finetune", original=original, l2_sp=1.0)(model, *masked_batch())
    if message.startswith("original"):
        for name, weights in (("consistency", {}), ("finetune", {"kl": 1.0})):
            with pytest.raises(refocus.InputError, match=message):
                refocus.objective(name, original=original, **weights)(model, *masked_batch())


@pytest.mark.parametrize(("name", "term"), [("finetune", "kl"), ("consistency", "consistency")])
def test_the_original_answers_in_eval_mode_and_keeps_its_own(
    tiny: Build, name: str, term: str
) -> None:
    model, given = tiny(), masked_batch()
    original = tiny(drop_rate=0.5, proj_drop_rate=0.5).train()
    original.norm.eval()
    step = refocus.objective(name, original=original, **({"kl": 1.0} if term == "kl" else {}))
    first, second = (step(model, *given)[term] for _ in range(2))
    assert torch.equal(first, second)
    assert original.training
    assert not original.norm.training


@pytest.mark.parametrize("name", ["refocus", "consistency"])
def test_a_term_of_weight_0_is_not_computed_and_changes_no_other(tiny: Build, name: str) -> None:
    model, given, original = tiny(), masked_batch(), tiny()
    read = original_of(name, original)
    whole = refocus.objective(name, **read)(model, *given)
    less = refocus.objective(name, **read, energy=0.0)(model, *given)
    assert set(whole) - set(less) == {"energy"}
    for term in set(less) - {"loss"}:
        torch.testing.assert_close(less[term], whole[term])
    none = refocus.objective(name, **read, **dict.fromkeys(set(whole) - {"loss"}, 0.0))
    assert none(model, *given)["loss"].item() == 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [("finetune", {}), ("legrad", {}), ("relevance-exact", {}), ("energy", {"second_order": True})],
)
def test_recompute_is_refused_where_it_changes_nothing_or_cannot_work(
    name: str, settings: dict[str, bool]
) -> None:
    with pytest.raises(refocus.InputError, match="recompute: "):
        refocus.objective(name, recompute=True, **settings)


def test_recompute_refuses_dropped_maps_and_maps_of_ones_own(tiny: Build) -> None:
    from tests.own_vit import OwnViT

    for model, reason in (
        (tiny(attn_drop_rate=0.5).train(), "attention dropout of 0.5"),
        (OwnViT(by_hand=True), "its own maps"),
    ):
        images, masks = torch.randn(2, 3, 32, 32), torch.ones(2, 1, 32, 32)
        with pytest.raises(refocus.InputError, match=reason):
            refocus.objective("relevance", recompute=True)(
                model, images, masks, torch.tensor([0, 1])
            )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_row_says_whether_the_objective_trains_the_map_of_a_target(
    tiny: Build, name: str
) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    if not OBJECTIVES[name].by_map:
        for given in ({"target": lambda z: z[:, 0]}, {"recompute": True}):
            with pytest.raises(refocus.InputError, match=f"objective '{name}' does not use it"):
                refocus.objective(name, **given)
        return

    def term_of(label: int, **given: Any) -> Tensor:
        """With images of this class, by their labels and by the original's answers."""
        original = tiny()
        with torch.no_grad():
            original.head.bias[label] += 100
        step = refocus.objective(name, **original_of(name, original), **given)
        terms = step(model, images, masks, labels.new_full(labels.shape, label))
        (term, *_) = set(OBJECTIVES[name].weights) & {"background", "energy", "bce"}
        return terms[term]

    own = term_of(3, target=lambda z: z[:, 0])
    assert not torch.equal(own, term_of(3))
    torch.testing.assert_close(own, term_of(0))


_NO_CLASSES = {
    "a number": torch.rand(8),
    "several": torch.randint(0, 2, (8, 4)).float(),
    "outside": torch.tensor([-1, 0, 1, 9] * 2),
}


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.by_map])
@pytest.mark.parametrize("labels", _NO_CLASSES.values(), ids=_NO_CLASSES)
def test_labels_are_classes_where_a_term_reads_them_and_free_elsewhere(
    name: str, labels: Tensor, tiny: Build
) -> None:
    images, masks, _ = masked_batch(8)
    target = {"target": lambda z: z[:, 0], **original_of(name, tiny())}
    if reading := OBJECTIVES[name].by_label:
        with pytest.raises(refocus.InputError, match=r"^labels: "):
            refocus.objective(name, **target)(tiny(), images, masks, labels)
    free = refocus.objective(name, **target, **dict.fromkeys(reading, 0.0))
    terms = free(tiny(), images, masks, labels)
    assert torch.isfinite(terms["loss"])
    assert terms.keys().isdisjoint(reading)
    with pytest.raises(refocus.InputError, match=r"^labels: "):  # a term of any objective
        refocus.objective(name, **target, **dict.fromkeys(reading, 0.0), labels=1.0)(
            tiny(), images, masks, labels
        )


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("consistency", {}),
        ("relevance", {"target": "predicted"}),
        ("legrad", {"target": "predicted"}),
        ("refocus", {"target": lambda z: z[:, 0], "classification": 0.0}),
        ("energy", {"map": "rollout", "classification": 0.0}),
    ],
)
def test_where_no_label_is_read_there_need_be_none(
    tiny: Build, name: str, given: dict[str, Any]
) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    read = original_of(name, tiny())
    step = refocus.objective(name, **read, **given)
    found = step(model, images, masks, None)
    torch.testing.assert_close(found["loss"], step(model, images, masks, labels)["loss"])
    if given.get("target") != "predicted":
        reading = refocus.objective(name, **read, **given, labels=1.0)
        with pytest.raises(refocus.InputError, match="labels: NoneType"):
            reading(model, images, masks, None)


@pytest.mark.parametrize("name", ["relevance", "legrad", "energy"])
def test_without_labels_the_map_is_of_the_predicted_class(tiny: Build, name: str) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()
    weights = {"classification": 0.0, "confidence": 0.2} if name == "energy" else {}
    step = refocus.objective(name, target="predicted", **weights)
    predicted = model(images).argmax(1)
    known = refocus.objective(name, **weights)(model, images, masks, predicted)
    for given in (labels, (labels + 1) % 4):  # the labels are not read
        found = step(model, images, masks, given)
        torch.testing.assert_close(found["loss"], known["loss"])


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("refocus", {"target": "predicted"}, "does not use it; choose one of relevance, rel"),
        ("finetune", {"target": "predicted"}, "does not use it"),
        (
            "energy",
            {"target": "predicted"},
            "the term 'classification' of objective",
        ),
        ("relevance", {"target": "predicted", "labels": 1.0}, "the term 'labels' of objective"),
        ("relevance", {"target": "predicted", "map": "rollout"}, "depends on no class"),
        ("energy", {"target": lambda z: z[:, 0], "map": "rollout"}, "^target: .*no class"),
        ("bce", {"target": lambda z: z[:, 0], "map": "attention"}, "^target: .*no class"),
        ("finetune", {"seen": [0]}, "^seen: objective 'finetune' does not use it; .* of refocus$"),
        ("consistency", {"seen": [0], "original": nn.Identity()}, "seen: objective 'consistency'"),
        ("refocus", {"original": nn.Identity()}, "^original: objective 'refocus' .* kl, l2_sp"),
        ("energy", {"original": nn.Identity(), "kl": 0.0}, "^original: objective 'energy' does"),
        ("refocus", {"seen": [0], "classification": 0.0}, "seen: the terms that read it have"),
        ("relevance", {"target": "guessed"}, "must be a function of the logits or predicted"),
        ("relevance", {"map": "gradcamm"}, "map gradcamm: unknown; choose one of gae, attention"),
        ("relevance", {"map": "rollout", "second_order": True}, "the map 'rollout' does not use"),
        (
            "relevance",
            {"map": "gradcam", "recompute": True},
            "recompute: applies only to GAE's map",
        ),
        ("relevance-exact", {"map": "gradcam"}, "'relevance-exact': applies only to GAE's map"),
        ("finetune", {"map": "rollout"}, "map: objective 'finetune' does not use it"),
        ("refocus", {"map": "rollout", "energy": 0.0}, "map: no term with a weight above 0 reads"),
        ("relevance", {"recompute": True, "relevance": 0.0}, "recompute: no term with a weight"),
        ("bce", {"second_order": True, "bce": 0.0}, "second_order: no term with a weight"),
        ("relevance", {"temperature": 0.5, "classification": 0.0}, "temperature: the terms that"),
    ],
)
def test_maps_and_targets_that_change_nothing_are_refused(
    name: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(refocus.InputError, match=message):
        refocus.objective(name, **given)


_PARTS: dict[str, Any] = {  # what of the model is trained
    "nothing": lambda model: (),
    "the head": lambda model: model.head.parameters(),
    "what follows the last map": lambda model: model.blocks[-1].mlp.parameters(),
    "the first block": lambda model: model.blocks[0].parameters(),
    "the last block": lambda model: model.blocks[-1].parameters(),
}
_MADE: dict[str, tuple[str, dict[str, Any], int]] = {  # the first of these parts that each reaches
    "gae": ("energy", {}, 3),
    "gae, recomputed": ("energy", {"recompute": True}, 3),
    "gae, exact": ("energy", {"second_order": True}, 1),
    "rollout": ("energy", {"map": "rollout"}, 3),
    "attention": ("energy", {"map": "attention"}, 3),
    "gradcam": ("energy", {"map": "gradcam"}, 3),
    "gradcam, exact": ("energy", {"map": "gradcam", "second_order": True}, 1),
    "legrad": ("legrad", {}, 1),
}


@pytest.mark.parametrize("made", _MADE)
def test_a_map_that_reaches_no_weight_is_refused(tiny: Build, made: str) -> None:
    name, given, first = _MADE[made]
    model, batch = tiny().requires_grad_(False), masked_batch()
    for number, (part, of) in enumerate(_PARTS.items()):
        if made == "gradcam" and part == "the last block":  # its tokens come before that
            continue
        trained = [weight.requires_grad_() for weight in of(model)]
        step = refocus.objective(name, **given)
        if number < first:
            with pytest.raises(refocus.InputError, match=r"depends on is frozen.* trains nothing"):
                step(model, *batch)
        else:
            terms = step(model, *batch)
            found = torch.autograd.grad(
                terms.get("energy", terms.get("background")), trained, allow_unused=True
            )
            assert any(g is not None and g.abs().max() > 0 for g in found), part
        model.requires_grad_(False)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_gradients_a_step_works_or_says_what_it_needs(tiny: Build, name: str) -> None:
    step, model = refocus.objective(name, **original_of(name, tiny())), tiny()
    given = masked_batch()
    for off in (torch.no_grad(), torch.inference_mode()):
        with off:
            if name in ("finetune", "swap"):
                assert not step(model, *given)["loss"].requires_grad
                continue
            with pytest.raises(refocus.InputError, match="gradients are off here"):
                step(model, *given)


@pytest.mark.parametrize("kind", ["rollout", "attention", "gradcam", "legrad"])
def test_the_term_of_another_map_alone_moves_the_weights(tiny: Build, kind: str) -> None:
    model = tiny()
    refocus.objective("energy", map=kind)(model, *masked_batch())["energy"].backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.blocks.parameters())


def test_a_map_of_ones_own_is_trained_and_looked_at(tiny: Build) -> None:
    model, (images, masks, labels) = tiny(), masked_batch()

    def edges(vit: Any, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        tokens = vit.forward_features(x)
        assert torch.equal(target, labels)
        return vit.forward_head(tokens), tokens[:, 1:].square().mean(2).reshape(len(x), 4, 4)

    terms = refocus.objective("energy", map=edges)(model, images, masks, labels)
    _, raw = edges(model, images, labels)
    expected = losses.outside_energy(upsample(raw, images.shape[-2:]), masks[:, 0])
    torch.testing.assert_close(terms["energy"], expected)
    wrong = {
        "must return logits": lambda m, x, t: m(x),
        "returned 1 maps for 4": lambda m, x, t: (m(x), edges(m, x, t)[1][:1]),
        "outside of the graph": lambda m, x, t: (m(x), edges(m, x, t)[1].detach()),
        r"returned logits \[4\]; must be \[B, K\]": lambda m, x, t: (m(x)[:, 0], edges(m, x, t)[1]),
        "down to -1; must never be negative": lambda m, x, t: (m(x), edges(m, x, t)[1] * 0 - 1),
    }
    for message, make in wrong.items():
        with pytest.raises(refocus.InputError, match=message):
            refocus.objective("energy", map=make)(model, images, masks, labels)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_row_says_whether_the_classes_tuned_on_are_read(tiny: Build, name: str) -> None:
    """By a step that takes them in any case, as `tune` makes it."""
    model, given, original = tiny(), masked_batch(), tiny()
    given = (*given[:2], given[2].clamp(max=1))  # all four would be seen else
    own, other = (
        step_of(name, StepSettings(seen=seen, original=original), {})(model, *given)["loss"]
        for seen in (None, (0, 1))
    )
    assert torch.equal(own, other) == ("seen" not in OBJECTIVES[name].switches)
