"""Relevance against a slow literal twin, its targets, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import refocus
from refocus.relevance import gae
from refocus.relevance.gae import attention_relevance, minmax, relevance_patches, upsample
from tests.makers import Build
from tests.relevance.makers import VARIANTS, batch


def literal_twin(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """GAE as written, one image at a time.

    Full N x N products, one gradient per block, maps formed by hand from q and k.
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_literal_twin(tiny: Build, variant: str) -> None:
    model = tiny(**VARIANTS[variant]).double()
    images, targets = batch(model).double(), torch.tensor([0, 3, 1])
    answer = refocus.explain(model, images, targets)
    torch.testing.assert_close(
        answer.patches, literal_twin(model, images, targets), rtol=1e-9, atol=1e-12
    )


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


def test_bfloat16_maps_are_held_as_they_are_and_counted_in_float32() -> None:
    torch.manual_seed(0)
    attention = torch.randn(5, 2, 6, 6).softmax(-1).bfloat16()
    gradient, row = torch.randn(5, 2, 6, 6).bfloat16(), torch.rand(5, 6)
    held: list[Tensor] = []

    def share(map_: Tensor, *, as_float: bool) -> tuple[Tensor, Tensor]:
        map_ = map_.clone().requires_grad_()
        given = (map_.float(), gradient.float()) if as_float else (map_, gradient)
        with saved_tensors_hooks(lambda x: held.append(x) or x, lambda x: x):
            found = attention_relevance(*given, row)
        found.square().sum().backward()
        assert map_.grad is not None
        return found, map_.grad

    wanted = share(attention, as_float=True)
    held.clear()
    found = share(attention, as_float=False)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert found[0].dtype == torch.float32
    assert {x.dtype for x in held if x.shape == gradient.shape} == {torch.bfloat16}


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


def test_pixels_that_are_in_no_patch_have_no_relevance_and_move_no_other(tiny: Build) -> None:
    """As timm's `vit_so400m_patch14_siglip_384`: of 384 pixels its patches of 14 cover 378."""
    model, whole = tiny(img_size=(38, 45)), tiny(img_size=(32, 40))
    whole.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 38, 45)
    found, expected = refocus.explain(model, images), refocus.explain(whole, images[..., :32, :40])
    assert (found.covered, expected.covered) == ((32, 40), (32, 40))
    assert torch.equal(found.patches, expected.patches)
    assert torch.equal(found.relevance[:, :32, :40], expected.relevance)
    assert not found.relevance[:, 32:].any()
    assert not found.relevance[..., 40:].any()


def test_a_patch_embedding_that_pads_covers_more_than_the_image(tiny: Build) -> None:
    model = tiny(dynamic_img_size=True, dynamic_img_pad=True)
    found = refocus.explain(model, torch.randn(1, 3, 28, 32))
    assert (found.patches.shape, found.covered) == ((1, 4, 4), (32, 32))
    expected = minmax(upsample(found.patches, (32, 32))[:, :28])
    assert torch.equal(found.relevance, expected)


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
        (torch.zeros(3, 32, 32), None, "must be normalized floats"),
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


def test_large_maps_are_made_of_few_images_at_a_time(
    tiny: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny()
    images, labels = batch(model, 5), torch.arange(5) % 4
    whole = refocus.explain(model, images, labels)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(gae, "_PAIRS", 2 * 17**2)  # two images of 16 patches and a class token
    parts = refocus.explain(model, images, labels)
    assert sizes == [2, 2, 1]
    for one, other in zip(vars(whole).values(), vars(parts).values(), strict=True):
        torch.testing.assert_close(one, other)
    sizes.clear()
    refocus.explain(model, images, lambda logits: logits[torch.arange(5), labels])
    assert sizes == [5]  # a function may look at all images together


def test_a_function_of_the_logits_is_explained(tiny: Build) -> None:
    model, images = tiny(), torch.randn(2, 3, 32, 32)
    e = refocus.explain(model, images, lambda z: z[:, 2])
    assert torch.equal(e.patches, refocus.explain(model, images, 2).patches)
    assert torch.equal(e.targets, e.logits[:, 2])
    both = refocus.explain(model, images, lambda z: z[:, [1, 2]].sum(1))
    assert not torch.equal(both.patches, e.patches)
    with pytest.raises(refocus.InputError, match="one score for each of 2 images"):
        refocus.explain(model, images, lambda z: z)


def test_a_regression_head_is_explained_and_tuned(tiny: Build) -> None:
    model, images = tiny(num_classes=1), torch.randn(2, 3, 32, 32)
    masks = torch.zeros(2, 1, 32, 32)
    masks[..., :16] = 1
    step = refocus.objective("relevance", target=lambda z: z[:, 0], classification=0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    found = []
    for _ in range(8):
        terms = step(model, images, masks, torch.zeros(2, dtype=torch.long))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        found.append(terms["background"].item())
    assert found[-1] < found[0]
    with pytest.raises(refocus.InputError, match="does not use it"):
        refocus.objective("finetune", target=lambda z: z[:, 0])
