"""Each other map against its equation, one image and one head at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import refocus
from refocus.relevance.attention import attention_maps
from refocus.relevance.maps import MAPS
from tests.makers import Build, masked_batch
from tests.zoo import ZOO


def _made(tiny: Build, name: str, images: Tensor, labels: Tensor) -> tuple[object, Tensor]:
    model = tiny().double()
    return model, MAPS[name].make(model, images, labels, False)[1]


def test_attention_is_the_class_tokens_last_row(tiny: Build) -> None:
    images, _, labels = masked_batch()
    model, found = _made(tiny, "attention", images.double(), labels)
    with attention_maps(model) as maps:  # type: ignore[arg-type]
        model(images.double())  # type: ignore[operator]
    expected = torch.stack([maps[-1][:, head, 0, 1:] for head in range(3)]).mean(0)
    torch.testing.assert_close(found.flatten(1), expected)


def test_rollout_is_the_product_of_attention_and_identity(tiny: Build) -> None:
    images, _, labels = masked_batch()
    model, found = _made(tiny, "rollout", images.double(), labels)
    with attention_maps(model) as maps:  # type: ignore[arg-type]
        model(images.double())  # type: ignore[operator]
    for position in range(len(images)):
        product = torch.eye(17).double()
        for layer in maps:
            mixed = (layer[position].mean(0) + torch.eye(17).double()) / 2
            product = (mixed / mixed.sum(-1, keepdim=True)) @ product
        torch.testing.assert_close(found[position].flatten(), product[0, 1:])


def test_gradcam_weighs_the_tokens_by_their_mean_gradients(tiny: Build) -> None:
    images, _, labels = masked_batch()
    model, found = _made(tiny, "gradcam", images.double(), labels)
    vit: object = model
    entered: list[Tensor] = []
    handle = vit.blocks[-1].register_forward_pre_hook(  # type: ignore[attr-defined]
        lambda _module, args: entered.append(args[0])
    )
    logits = vit(images.double())  # type: ignore[operator]
    handle.remove()
    for position, label in enumerate(labels.tolist()):
        (gradient,) = torch.autograd.grad(logits[position, label], entered[0], retain_graph=True)
        alpha = gradient[position, 1:].mean(0)
        cam = (entered[0][position, 1:] * alpha).sum(1).relu()
        torch.testing.assert_close(found[position].flatten(), cam)


@pytest.mark.filterwarnings("ignore")
def test_a_pooling_that_the_classifier_does_not_read_is_left_out() -> None:
    pytest.importorskip("transformers")
    model, images = ZOO["SigLIP (transformers)"][""](), torch.randn(2, 3, 32, 32)
    with attention_maps(model) as maps:
        model(images)
    layers = [attention.mean(1) for attention in maps[:-1]]
    assert maps[-1].shape[2] == 1
    assert layers[-1].shape[1] == layers[-1].shape[2]
    found = MAPS["attention"].make(model, images, None, False)[1]
    torch.testing.assert_close(found.flatten(1), layers[-1].mean(1))  # the head reads their mean
    row = torch.full((2, 1, layers[0].shape[1]), 1 / layers[0].shape[1])
    for attention in reversed(layers):
        row = (row + row @ attention) / 2
    found = MAPS["rollout"].make(model, images, None, False)[1]
    torch.testing.assert_close(found.flatten(1), row[:, 0])


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_of_a_class_where_its_row_says_so(tiny: Build, name: str) -> None:
    model, (images, _, labels) = tiny(), masked_batch()
    one, other = (MAPS[name].make(model, images, target, False)[1] for target in (labels, None))
    shifted = MAPS[name].make(model, images, (labels + 1) % 4, False)[1]
    assert one.shape == other.shape == (4, 4, 4)
    assert (one >= 0).all()
    assert torch.equal(one, shifted) == (not MAPS[name].by_class)


@pytest.mark.parametrize("changes", [{}, {"global_pool": "avg"}, {"global_pool": "map"}])
@pytest.mark.parametrize("name", ["gae", *MAPS])
def test_a_map_of_patches_that_were_dropped_is_refused(
    tiny: Build, name: str, changes: dict[str, Any]
) -> None:
    model, batch = tiny(patch_drop_rate=0.5, **changes), masked_batch()
    step = refocus.objective("energy", map=name)
    assert torch.isfinite(step(model.eval(), *batch)["loss"])  # none is dropped there
    with pytest.raises(refocus.InputError, match=r"tokens for [01] before 4 x 4 patches: patch dr"):
        step(model.train(), *batch)
    if name == "legrad":
        with pytest.raises(refocus.InputError, match="before 4 x 4 patches"):
            refocus.objective("legrad")(model, *batch)
