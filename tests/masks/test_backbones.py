"""Keys of the last block, at any aspect ratio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from refocus.masks import backbones
from refocus.vit import loading


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    )


@pytest.fixture
def backbone(tiny: Callable[..., nn.Module], tmp_path: Path) -> nn.Module:
    loading.save(tiny(reg_tokens=2), tmp_path / "backbone")
    return backbones.load_backbone(str(tmp_path / "backbone"))


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((400, 300), (6, 8)),
        ((300, 400), (8, 6)),
        ((90, 90), (7, 7)),
        ((6000, 100), (4, 14)),
        ((5, 900), (14, 4)),
    ],
)
def test_images_keep_their_aspect_ratio_up_to_four_to_one(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert backbones.grid_of(size, 56, 8) == grid


def test_a_backbone_takes_any_size_as_timm_itself_would(backbone: nn.Module) -> None:
    images = torch.randn(1, 3, 48, 24)
    plain = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=3,
        num_heads=3,
        num_classes=4,
        reg_tokens=2,
        dynamic_img_size=True,
    ).eval()
    plain.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), plain(images))


def test_keys_and_saliency_are_those_of_the_last_block(backbone: nn.Module) -> None:
    pixels = backbones.Reader(backbone, 48)(picture(40, 80))
    seen: dict[str, Tensor] = {}
    attention = backbone.blocks[-1].attn
    attention.fused_attn = False
    handles = [
        backbone.blocks[-1].norm1.register_forward_hook(
            lambda _m, _i, out: seen.update(hidden=out)
        ),
        attention.attn_drop.register_forward_hook(lambda _m, _i, out: seen.update(map=out)),
    ]
    with torch.no_grad():
        backbone(pixels.network[None])
    for handle in handles:
        handle.remove()
    found = backbones.keys_of(backbone, pixels)
    assert found.grid == (8, 4)
    assert pixels.size == (40, 80)
    assert pixels.picture.shape == (64, 32, 3)
    expected = seen["hidden"][0] @ attention.qkv.weight[24:48].T + attention.qkv.bias[24:48]
    torch.testing.assert_close(found.keys, expected[3:].detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.saliency, seen["map"][0, :, 0, 3:].mean(0), rtol=1e-4, atol=1e-6
    )
    assert not attention.qkv._forward_hooks


def test_without_a_class_token_the_patches_attention_is_taken(
    tiny: Callable[..., nn.Module], tmp_path: Path
) -> None:
    loading.save(tiny(class_token=False, global_pool="avg"), tmp_path / "pooled")
    backbone = backbones.load_backbone(str(tmp_path / "pooled"))
    found = backbones.keys_of(backbone, backbones.Reader(backbone, 32)(picture(32, 32)))
    assert found.saliency.shape == (16,)
    assert float(found.saliency.sum()) == pytest.approx(1, abs=1e-5)
