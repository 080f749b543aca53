"""Recording attention maps changes nothing and leaves nothing behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import timm
import torch
from torch import nn

import refocus
from refocus.relevance.attention import attention_maps
from tests.makers import Build
from tests.relevance.makers import VARIANTS, batch


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_sum_to_one_and_recording_changes_no_logit(tiny: Build, variant: str) -> None:
    model = tiny(**VARIANTS[variant])
    images = batch(model)
    with torch.no_grad():
        plain = model(images)
        with attention_maps(model) as maps:
            recorded = model(images)
    assert len(maps) == 3
    for attention in maps:
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))
    torch.testing.assert_close(recorded, plain, rtol=1e-4, atol=1e-5)


def snapshot(model: nn.Module) -> Any:
    return (
        [
            (
                m.training,
                len(m._forward_hooks),
                len(m._forward_pre_hooks),
                getattr(m, "fused_attn", None),
            )
            for m in model.modules()
        ],
        [(p.requires_grad, p.grad, p.detach().clone()) for p in model.parameters()],
        list(model.state_dict()),
    )


def equal(a: Any, b: Any) -> bool:
    return (
        a[0] == b[0]
        and a[2] == b[2]
        and all(
            x[0] == y[0] and x[1] is y[1] and torch.equal(x[2], y[2])
            for x, y in zip(a[1], b[1], strict=True)
        )
    )


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_no_trace(tiny: Build, fails: bool) -> None:
    model = tiny(num_classes=4).train()
    next(model.parameters()).requires_grad_(False)  # a mixed state must come back as it was
    model.blocks[1].attn.fused_attn = False
    before = snapshot(model)
    if fails:
        with pytest.raises(
            refocus.InputError, match=r"\[1, 3, 40, 32\].*height"
        ):  # timm's own complaint about the input size
            refocus.explain(model, torch.randn(1, 3, 40, 32))
    else:
        refocus.explain(model, torch.randn(1, 3, 32, 32))
    assert equal(before, snapshot(model))


def test_two_threads_get_each_its_own_maps_and_leave_no_trace(tiny: Build) -> None:
    model, images = tiny(), torch.randn(6, 2, 3, 32, 32)
    before = snapshot(model)
    expected = [refocus.explain(model, x).patches for x in images]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda i: refocus.explain(model, images[i % 6]).patches, range(60)))
    assert all(torch.equal(patches, expected[i % 6]) for i, patches in enumerate(found))
    assert equal(before, snapshot(model))


def test_another_threads_passes_are_not_recorded(tiny: Build) -> None:
    model, images = tiny(), torch.randn(1, 3, 32, 32)
    with attention_maps(model) as maps, ThreadPoolExecutor(1) as pool:
        model(images)
        kept = list(maps)
        pool.submit(model, images).result()
    assert len(maps) == 3
    assert all(a is b for a, b in zip(maps, kept, strict=True))


@pytest.mark.parametrize("how", ["torch's function", "the model's own layers"])
def test_a_recording_inside_another_leaves_it_what_it_has(tiny: Build, how: str) -> None:
    model, images = tiny(), torch.randn(1, 3, 32, 32)
    own = None if how.startswith("torch") else [block.attn.attn_drop for block in model.blocks]
    with refocus.recorded(model, own) as maps:
        model(images)
        kept = list(maps)
        refocus.explain(model, torch.randn(2, 3, 32, 32))
        with refocus.recorded(model, own) as inner:
            model(images)
        assert len(maps) == len(inner) == 3
        assert all(a is b for a, b in zip(maps, kept, strict=True))
        model(images)
    assert len(maps) == 3
    assert not any(a is b for a, b in zip(maps, kept, strict=True))


def test_layers_of_timm_give_their_maps_as_torchs_function_does(tiny: Build) -> None:
    model, images = tiny(), torch.randn(2, 3, 32, 32)
    model.blocks[1].attn.fused_attn = False
    with attention_maps(model) as expected:
        model(images)
    for give in (list, iter):  # what can be read once is taken too
        layers = give([block.attn.attn_drop for block in model.blocks])
        with refocus.recorded(model, layers) as maps:
            model(images)
        torch.testing.assert_close(maps, expected)
    assert [block.attn.fused_attn for block in model.blocks] == [True, False, True]


def test_a_scale_that_torchs_function_would_not_take_is_refused(tiny: Build) -> None:
    model = tiny()
    for block in model.blocks:
        block.attn.scale *= 2
        block.attn.fused_attn = False
    with pytest.raises(refocus.InputError, match=r"blocks.0.attn.scale is 0\.707107 in place of"):
        refocus.explain(model, torch.randn(1, 3, 32, 32))
    assert not model.blocks[0].attn.fused_attn
    layers = [block.attn.attn_drop for block in model.blocks]
    plain = model(torch.ones(1, 3, 32, 32))
    with refocus.recorded(model, layers) as maps:
        assert torch.equal(model(torch.ones(1, 3, 32, 32)), plain)
    assert len(maps) == 3


def test_dropped_patches_are_refused(tiny: Build) -> None:
    model = tiny(patch_drop_rate=0.5).train()
    masks = torch.ones(2, 1, 32, 32)
    with pytest.raises(refocus.InputError, match="9 tokens for 1 before 4 x 4 patches"):
        refocus.objective("relevance")(
            model, torch.randn(2, 3, 32, 32), masks, torch.tensor([0, 1])
        )


@pytest.mark.parametrize(
    ("name", "args", "reason"),
    [
        ("resnet18", {}, "global attention"),
        ("swin_tiny_patch4_window7_224", {}, "global attention"),
        ("vit_tiny_patch16_224", {"global_pool": "prr"}, "AttentionPoolPrr"),
        ("vit_tiny_patch16_224", {"global_pool": "max"}, "pooling 'max'"),
        ("vit_dlittle_patch16_reg1_gap_256", {}, "DiffAttention"),
    ],
)
def test_unsupported_models_are_refused_with_the_alternative(
    name: str, args: dict[str, Any], reason: str
) -> None:
    model = timm.create_model(name, **args)
    with pytest.raises(refocus.InputError, match=reason):
        refocus.explain(model, torch.zeros(1, 3, 224, 224))
