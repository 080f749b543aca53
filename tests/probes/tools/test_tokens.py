"""Tokens and units are those that the model itself computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from refocus.errors import InputError
from refocus.probes.tools.surgery import blocks
from refocus.probes.tools.tokens import block_tokens, last_layer, mlp_units
from refocus.relevance.answers import logits_of
from tests.zoo import CASES, ZOO, build, images_for

_NO_MLP = ("parallel attention and MLP", "two blocks side by side")


def test_every_family_gives_a_token_of_each_block_and_the_units_of_its_mlps() -> None:
    for family, variant in CASES:
        model = build(family, variant)
        images = images_for(model)
        tokens = block_tokens(model, images)
        assert tokens.shape == (2, 3, 24), (family, variant)
        assert (tokens[0] - tokens[1]).abs().amax(1).gt(1e-4).all(), (family, variant)
        if variant in _NO_MLP:
            with pytest.raises(InputError, match="cannot be taken out alone"):
                mlp_units(model, images, 2)
        else:
            units = mlp_units(model, images, 2)
            assert units.shape == (2, last_layer(model, 2).in_features), (family, variant)
        assert not any(block._forward_hooks for block in blocks(model))


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("ViT", lambda m, token: m.head(m.norm(token))),
        ("ViT (transformers)", lambda m, token: m.classifier(m.vit.layernorm(token))),
        ("ViT (torchvision)", lambda m, token: m.heads(m.encoder.ln(token))),
    ],
)
def test_the_last_blocks_token_leads_to_the_answer(family: str, head: Any) -> None:
    model = build(family, next(iter(ZOO[family])))
    images = images_for(model)
    with torch.no_grad():
        answer = head(model, block_tokens(model, images)[:, -1])
        torch.testing.assert_close(answer, logits_of(model, images))


def test_without_a_class_token_the_mean_is_taken() -> None:
    for family, variant in (("ViT", "attention pooling"), ("ViT", "no prefix")):
        model: Any = build(family, variant)
        images, seen = images_for(model), []
        handle = model.blocks[1].register_forward_hook(lambda _m, _a, out, s=seen: s.append(out))
        with torch.no_grad():
            model(images)
        handle.remove()
        torch.testing.assert_close(block_tokens(model, images)[:, 1], seen[0].mean(1))


def test_a_unit_is_as_strong_as_its_strongest_token() -> None:
    model: Any = build("ViT", "class token")
    images, seen = images_for(model), []
    handle = model.blocks[1].mlp.act.register_forward_hook(lambda _m, _a, out: seen.append(out))
    with torch.no_grad():
        model(images)
    handle.remove()
    torch.testing.assert_close(mlp_units(model, images, 1), seen[0].max(1).values)
