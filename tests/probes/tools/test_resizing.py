"""Other patches: what timm makes of its own models, and what transformers make of theirs."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch.nn import functional as F

from refocus.errors import InputError
from refocus.probes.tools.resizing import on_grid, patch_of, with_patches
from refocus.relevance.answers import logits_of
from refocus.vit.families import covered_pixels
from tests.zoo import CASES, ZOO, build, images_for


@pytest.mark.parametrize("new", [(4, 4), (12, 12), (16, 16), (5, 11)])
def test_a_patch_seen_by_the_kernel_is_the_patch_seen_by_the_resampled_kernel(
    new: tuple[int, int],
) -> None:
    kernel = torch.randn(6, 3, 8, 8)
    images = torch.rand(2, 3, 4 * new[0], 3 * new[1])
    expected = F.conv2d(images, resample_patch_embed(kernel, list(new)), stride=new)
    found = F.conv2d(with_patches(images, (8, 8), new), kernel, stride=8)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_models_own_patch_changes_nothing_in_any_family_and_another_grid_is_taken() -> None:
    for family, variant in CASES:
        model = build(family, variant)
        images, own = images_for(model), patch_of(model)
        assert covered_pixels(model, images.shape[-2:]) == images.shape[-2:], (family, variant)
        assert covered_pixels(model, (own[0] * 6 - 1, own[1] * 4 + 3)) == (own[0] * 5, own[1] * 4)
        grid = (images.shape[-2] // own[0], images.shape[-1] // own[1])
        other = (3, 3)
        with torch.no_grad():
            expected = logits_of(model, images)
            same = logits_of(on_grid(model, grid), with_patches(images, own, own))
            torch.testing.assert_close(same, expected, atol=1e-4, rtol=1e-4)
            smaller = F.interpolate(images, (other[0] * own[0], other[1] * own[1]))
            answers = logits_of(on_grid(model, other), smaller)
            torch.testing.assert_close(logits_of(model, images), expected)  # left as it was
        assert answers.shape == expected.shape, (family, variant)
        assert answers.isfinite().all()


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # BEiT's, of timm's own call
@pytest.mark.parametrize(
    ("family", "variant"),
    [("ViT", "class token"), ("ViT", "DINOv2, registers"), ("EVA", "EVA"), ("BEiT", "class token")],
)
def test_of_timm_it_is_what_timm_itself_resamples(family: str, variant: str) -> None:
    model: Any = build(family, variant)
    images = images_for(model)
    twin = deepcopy(model)
    twin.set_input_size(img_size=(32, 32), patch_size=(4, 4))
    twin.patch_embed.proj.weight.data = twin.patch_embed.proj.weight.data.contiguous()
    seen = with_patches(images, (8, 8), (4, 4))
    with torch.no_grad():
        found = logits_of(on_grid(model, (8, 8)), seen)
        torch.testing.assert_close(found, logits_of(twin, images), atol=1e-3, rtol=1e-3)


def test_positions_of_the_other_libraries() -> None:
    model: Any = build("ViT (transformers)", "ViT")
    larger = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = model(larger, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(logits_of(on_grid(model, (6, 6)), larger), expected)
        vision: Any = build("ViT (torchvision)", "")
        copy: Any = on_grid(vision, (6, 6))
        expected = resample_abs_pos_embed(
            vision.encoder.pos_embedding, [6, 6], [4, 4], num_prefix_tokens=1
        )
        torch.testing.assert_close(copy.encoder.pos_embedding, expected)
        assert logits_of(copy, larger).shape == (2, 4)


def test_oblong_inputs_of_torchvision_and_own_models_are_refused() -> None:
    with pytest.raises(InputError, match="it takes square ones"):
        on_grid(ZOO["ViT (torchvision)"][""](), (2, 3))
