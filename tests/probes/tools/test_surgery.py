"""Parts of a model taken out: what the rest computes, and that all is back afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from refocus.errors import InputError
from refocus.probes.tools.surgery import blocks, neighbours, without
from refocus.relevance.answers import last_linear_input, logits_of
from refocus.relevance.attention import limited_attention
from refocus.vit.families import view
from refocus.vit.loading import preprocessing
from tests.makers import Build
from tests.zoo import ZOO

EVERY = [(family, variant) for family, variants in ZOO.items() for variant in variants]
WHOLE = [
    "parallel attention and MLP",
    "two blocks side by side",
]  # their branches have no module of their own


def built(family: str, variant: str) -> tuple[Any, Tensor]:
    model = ZOO[family][variant]()
    for parameter in (
        model.parameters()
    ):  # layer scales and heads start near 0, where a part would hardly be missed
        parameter.data = parameter.data + 0.2 * torch.randn_like(parameter)
    return model, torch.randn(2, *preprocessing(model)["input_size"])


@pytest.mark.parametrize(("family", "variant"), EVERY)
def test_a_block_that_is_left_out_hands_its_input_on(family: str, variant: str) -> None:
    model, images = built(family, variant)
    seen: dict[str, Any] = {}
    before, after = blocks(model)[0], blocks(model)[2]
    handles = [
        before.register_forward_hook(
            lambda _m, _a, out: seen.update(out=out[0] if isinstance(out, tuple) else out)
        ),
        after.register_forward_pre_hook(
            lambda _m, args, kwargs: seen.update(
                given=args[0] if args else kwargs["hidden_states"]
            ),
            with_kwargs=True,
        ),
    ]
    with torch.no_grad():
        whole = logits_of(model, images)
        assert not torch.equal(seen["out"], seen["given"])
        with without(model, "block", [1]):
            assert not torch.allclose(logits_of(model, images), whole)
            assert torch.equal(seen["out"], seen["given"])
        assert torch.equal(logits_of(model, images), whole)
    for handle in handles:
        handle.remove()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "variant"), [pair for pair in EVERY if pair[1] not in WHOLE])
def test_without_both_branches_a_block_is_left_out(family: str, variant: str) -> None:
    model, images = built(family, variant)
    with torch.no_grad():
        whole = logits_of(model, images)
        with without(model, "attention", [1]):
            no_attention = logits_of(model, images)
            with without(model, "mlp", [1]):
                neither = logits_of(model, images)
        with without(model, "mlp", [1]):
            no_mlp = logits_of(model, images)
        with without(model, "block", [1]):
            torch.testing.assert_close(neither, logits_of(model, images))
        assert torch.equal(logits_of(model, images), whole)
    for found in (no_attention, no_mlp):
        assert not torch.allclose(found, whole)
        assert not torch.allclose(found, neither)


@pytest.mark.parametrize("variant", WHOLE)
def test_branches_that_cannot_be_told_apart_are_refused(variant: str) -> None:
    model = ZOO["ViT"][variant]()
    with pytest.raises(InputError, match="cannot be taken out alone"), without(model, "mlp", [0]):
        pass


def test_all_is_back_after_an_error(tiny: Build) -> None:
    model, images = tiny(), torch.randn(1, 3, 32, 32)
    whole = model(images)
    with pytest.raises(RuntimeError), without(model, "block", [0, 1]):
        raise RuntimeError
    assert torch.equal(model(images), whole)


def test_leaving_out_all_later_blocks_is_an_early_exit(tiny: Build) -> None:
    model, images = tiny(), torch.randn(2, 3, 32, 32)
    with torch.no_grad(), without(model, "block", [1, 2]):
        found = model(images)
    model.blocks = model.blocks[:1]
    assert torch.equal(found, model(images))


def test_who_is_a_neighbour() -> None:
    allowed = neighbours((3, 4), 1, 1)
    assert allowed[0].all()
    assert allowed[:, 0].all()
    middle = allowed[1 + 5, 1:].unflatten(0, (3, 4))  # row 1, column 1
    assert torch.equal(middle, torch.tensor([[1, 1, 1, 0]] * 3, dtype=torch.bool))
    assert torch.equal(neighbours((3, 4), 2, 0)[2:, 2:], torch.eye(12, dtype=torch.bool))


@pytest.mark.parametrize(("family", "variant"), EVERY)
def test_a_patch_cannot_see_what_is_too_far(family: str, variant: str) -> None:
    model, images = built(family, variant)
    reader = view(model)
    grid = reader.grid(*images.shape[-2:])
    seen: list[Tensor] = []
    handle = blocks(model)[0].register_forward_hook(
        lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    changed = images.clone()
    changed[..., : images.shape[-2] // grid[0], : images.shape[-1] // grid[1]] += (
        1  # the first patch
    )
    with torch.no_grad():
        whole = logits_of(model, images)
        for everyone in (True, False):
            reach = max(grid) if everyone else 0
            with limited_attention(model, neighbours(grid, reader.prefix, reach)):
                seen.clear()
                logits = logits_of(model, images)
                logits_of(model, changed)
            if everyone:
                torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)
            tokens = [x if x.shape[0] == 2 else x.transpose(0, 1) for x in seen]
            moved = (tokens[0] - tokens[1]).abs().amax((0, 2))[reader.prefix :]
            assert moved[0] > 0
            assert bool((moved[1:] > 0).any()) == everyone
    handle.remove()


@pytest.mark.parametrize(("family", "variant"), EVERY)
def test_features_are_what_the_classifier_reads(family: str, variant: str) -> None:
    model, images = built(family, variant)
    with torch.no_grad():
        logits, features = last_linear_input(model, images)
        torch.testing.assert_close(logits, logits_of(model, images))
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 4]
    with torch.no_grad():
        if "distilled" in family:
            parts = features.chunk(2, dim=-1)
            answers = (heads[-2](parts[0]) + heads[-1](parts[1])) / 2
        else:
            answers = heads[-1](features)
    if "zero-shot" in family:
        answers = model.scale * answers + model.shift
    torch.testing.assert_close(answers, logits)
