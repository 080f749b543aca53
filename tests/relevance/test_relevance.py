"""Relevance against a slow literal twin, and that nothing is left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import refocus
from refocus.relevance.attention import attention_maps
from refocus.relevance.gae import attention_relevance, minmax, relevance_patches

Build = Callable[..., nn.Module]

VARIANTS: dict[str, dict[str, Any]] = {
    "class token": {},
    "no prefix, mean of patches": {"class_token": False, "global_pool": "avg"},
    "class token, mean of patches": {"global_pool": "avg"},
    "mean over all tokens": {"global_pool": "avg", "pool_include_prefix": True},
    "four registers": {"reg_tokens": 4},
    "non-square": {"img_size": (16, 40)},
    "patch 4": {"patch_size": 4, "img_size": 16},
    "layer scale, qk norm": {"init_values": 0.5, "qk_norm": True},
    "one head": {"num_heads": 1},
    "dropout": {"attn_drop_rate": 0.3, "drop_rate": 0.3},
}


def literal_twin(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """GAE as written: full N x N products, one gradient per block, one image at a time, maps formed
    by hand from q and k.
    """
    model = copy.deepcopy(model).double().eval()
    out = []
    for image, target in zip(images.double(), targets, strict=True):
        maps: list[Tensor] = []
        for block in model.blocks:
            block.attn.fused_attn = False
            block.attn.attn_drop = _Keep(maps)
        score = model(image[None])[0, target]
        tokens = maps[0].shape[-1]
        total = torch.eye(tokens, dtype=torch.float64)
        for attention in list(maps):
            (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
            mean = torch.zeros(tokens, tokens, dtype=torch.float64)
            for head in range(attention.shape[1]):
                mean += torch.relu(gradient[0, head] * attention[0, head]) / attention.shape[1]
            total = total + mean @ total
        prefix = model.num_prefix_tokens
        pooled = total[0 if model.pool_include_prefix else prefix :].mean(0)
        row = total[0] if model.global_pool == "token" else pooled
        height, width = (
            side // patch
            for side, patch in zip(image.shape[1:], model.patch_embed.patch_size, strict=True)
        )
        out.append(row[prefix:].reshape(height, width).detach())
    return torch.stack(out)


class _Keep(nn.Module):
    def __init__(self, maps: list[Tensor]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, attention: Tensor) -> Tensor:
        self.maps.append(attention)
        return attention


def batch(model: nn.Module, count: int = 3) -> Tensor:
    return torch.randn(count, 3, *model.patch_embed.img_size)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_literal_twin(tiny: Build, variant: str) -> None:
    model = tiny(**VARIANTS[variant]).double()
    images, targets = batch(model).double(), torch.tensor([0, 3, 1])
    answer = refocus.explain(model, images, targets)
    torch.testing.assert_close(
        answer.patches, literal_twin(model, images, targets), rtol=1e-9, atol=1e-12
    )


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


def test_the_share_of_a_constant_gradient_has_the_derivative_of_the_equation() -> None:
    attention, row = (
        torch.rand(2, 3, 5, 5, dtype=torch.float64).softmax(-1),
        torch.rand(2, 5, dtype=torch.float64),
    )
    gradient = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    found, expected = [], []
    for into, share in (
        (found, attention_relevance),
        (expected, lambda a, g, r: (r[:, None] @ (g * a).clamp(min=0).mean(1))[:, 0]),
    ):
        a, r = attention.clone().requires_grad_(), row.clone().requires_grad_()
        out = share(a, gradient, r)
        into += [out, *torch.autograd.grad(out.square().sum(), (a, r))]
    for ours, literal in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, literal)


def test_shapes_and_ranges(tiny: Build) -> None:
    model = tiny(img_size=(16, 40))
    e = refocus.explain(model, torch.randn(2, 3, 16, 40))
    assert e.logits.shape == (2, 4)
    assert e.patches.shape == (2, 2, 5)
    assert e.relevance.shape == (2, 16, 40)
    assert (e.patches >= 0).all()
    torch.testing.assert_close(e.relevance.amin((1, 2)), torch.zeros(2))
    torch.testing.assert_close(e.relevance.amax((1, 2)), torch.ones(2))
    assert not e.relevance.requires_grad
    assert torch.equal(e.targets, e.logits.argmax(1))


def test_targets_as_none_int_list_and_tensor(tiny: Build) -> None:
    model, images = tiny(), torch.randn(2, 3, 32, 32)
    predicted = refocus.explain(model, images).logits.argmax(1)
    for same in (predicted, predicted.tolist()):
        assert torch.equal(
            refocus.explain(model, images, same).patches, refocus.explain(model, images).patches
        )
    one, listed = refocus.explain(model, images, 2), refocus.explain(model, images, [2, 2])
    assert torch.equal(one.patches, listed.patches)
    assert not torch.equal(one.patches, refocus.explain(model, images, [2, 1]).patches)


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


def test_same_map_whatever_the_callers_grad_mode_and_frozen_weights(tiny: Build) -> None:
    model, images = tiny(), torch.randn(2, 3, 32, 32)
    expected = refocus.explain(model, images).patches
    with torch.no_grad():
        assert torch.equal(refocus.explain(model, images).patches, expected)
    model.requires_grad_(False)
    assert torch.equal(refocus.explain(model, images).patches, expected)
    model.requires_grad_(True)
    _, in_graph = relevance_patches(model, images, None, create_graph=True)
    torch.testing.assert_close(in_graph.detach(), expected)


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


def test_explains_inside_of_inference_mode(tiny: Build) -> None:
    model = tiny()
    with torch.inference_mode():
        images = torch.randn(2, 3, 32, 32)
        inside = refocus.explain(model, images).patches
    assert torch.equal(inside, refocus.explain(model, images.clone()).patches)


def test_a_model_of_dynamic_size_takes_other_resolutions(tiny: Build) -> None:
    model = tiny(dynamic_img_size=True).double()
    images, targets = torch.randn(2, 3, 48, 24).double(), torch.tensor([0, 1])
    answer = refocus.explain(model, images, targets)
    assert answer.patches.shape == (2, 6, 3)
    torch.testing.assert_close(
        answer.patches, literal_twin(model, images, targets), rtol=1e-9, atol=1e-12
    )


def test_dropped_patches_are_refused(tiny: Build) -> None:
    model = tiny(patch_drop_rate=0.5).train()
    masks = torch.ones(2, 1, 32, 32)
    with pytest.raises(refocus.InputError, match="9 tokens for 1 before 4 x 4 patches"):
        refocus.objective("relevance")(
            model, torch.randn(2, 3, 32, 32), masks, torch.tensor([0, 1])
        )


def test_bfloat16_model_accumulates_in_float32(tiny: Build) -> None:
    model, images = tiny(), torch.randn(2, 3, 32, 32)
    expected = refocus.explain(model, images).relevance
    half = refocus.explain(model.bfloat16(), images.bfloat16())
    assert half.patches.dtype == torch.float32
    assert (half.relevance - expected).abs().mean() < 0.05


def test_a_constant_map_becomes_zeros_with_finite_gradients() -> None:
    maps = torch.full((2, 4, 4), 0.3, requires_grad=True)
    scaled = minmax(maps)
    scaled.sum().backward()
    assert torch.equal(scaled, torch.zeros(2, 4, 4))
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (torch.zeros(3, 32, 32), None, "legal are normalized floats"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), None, "uint8"),
        (torch.zeros(2, 3, 32, 32), [0], "2 class indices"),
        (torch.zeros(1, 3, 32, 32), [4], "0 to 3"),
        (torch.zeros(1, 3, 32, 32), [-1], "0 to 3"),
    ],
)
def test_wrong_input_is_named(
    tiny: Build, images: Tensor, targets: list[int] | None, message: str
) -> None:
    with pytest.raises(refocus.InputError, match=message):
        refocus.explain(tiny(), images, targets)


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
