"""Recording attention maps changes nothing and leaves nothing behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import refocus
from refocus.relevance.attention import attention_maps
from tests.makers import Build, masked_batch
from tests.own_vit import Block, OwnViT
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


class _Shaped(Block):
    """Attention with its axes in another form: what `form` makes of `[B, H, N, d]`."""

    form = "apart"

    def forward(self, x: Tensor) -> Tensor:
        heads = 2 if self.form in ("apart", "folded") else 1
        parts = [
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm(x)).chunk(3, -1)
        ]
        before = parts[0].shape
        if self.form in ("folded", "single"):
            parts = [part.flatten(0, 1) for part in parts]
        elif self.form == "five axes":
            parts = [part[None] for part in parts]
        q, k, v = parts
        if self.by_hand:
            out = self.map(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5) @ v
        else:
            out = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + out.reshape(before).transpose(1, 2).flatten(2)


def _shaped(form: str, by_hand: bool) -> nn.Module:
    torch.manual_seed(0)
    model = OwnViT(by_hand)
    for block in model.blocks:
        block.__class__, block.form = _Shaped, form
        torch.nn.init.normal_(block.qkv.weight)
    return model.eval()


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_a_single_head_may_have_no_axis(by_hand: bool, count: int) -> None:
    one, other = (_shaped(form, by_hand) for form in ("one head", "single"))
    images = torch.randn(count, 3, 32, 32)
    expected, found = refocus.explain(one, images, 1), refocus.explain(other, images, 1)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.patches, expected.patches)
    assert found.patches.std() > 0
    given = masked_batch(count)
    for name in ("gae", "rollout", "attention"):
        losses = [refocus.objective("energy", map=name)(m, *given)["energy"] for m in (one, other)]
        torch.testing.assert_close(losses[1], losses[0])


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("form", ["folded", "five axes"])
def test_attention_of_another_form_is_refused(form: str, by_hand: bool) -> None:
    model, batch = _shaped(form, by_hand), masked_batch(2)
    message = r"must be \[B, H, N, (N|d)\], "
    with pytest.raises(refocus.InputError, match=message):
        refocus.explain(model, batch[0])
    for name in ("gae", "rollout", "attention"):
        with pytest.raises(refocus.InputError, match=message):
            refocus.objective("energy", map=name)(model, *batch)
    assert torch.isfinite(refocus.objective("finetune")(model, *batch)["loss"])
