"""What probes share: the attention of the readout, seeds of images."""

from __future__ import annotations

import pytest
import torch

from refocus.probes.batch import attention_of_readout, image_seed
from refocus.vit.precision import computing
from tests.makers import Build
from tests.zoo import ZOO


@pytest.mark.parametrize(("family", "variant"), [(f, v) for f, vs in ZOO.items() for v in vs])
def test_the_readouts_attention_is_a_share_for_every_head(family: str, variant: str) -> None:
    from refocus.vit.families import view
    from refocus.vit.loading import preprocessing

    model = ZOO[family][variant]()
    size = preprocessing(model)["input_size"]
    rows, columns = view(model).grid(*size[1:])
    found = attention_of_readout(model, torch.randn(2, *size))
    assert found.shape == (2, found.shape[1], rows * columns)
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:2]))


def test_attention_in_bfloat16_is_summed_in_float32(tiny: Build) -> None:
    model = tiny(class_token=False, global_pool="avg")
    with computing("bf16"):
        found = attention_of_readout(model, torch.randn(2, 3, 32, 32))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3))


def test_an_image_has_the_same_seed_wherever_it_stands() -> None:
    assert image_seed("cat/1.png", 0) == image_seed("cat/1.png", 0) != image_seed("cat/2.png", 0)
    assert image_seed("cat/1.png", 0) != image_seed("cat/1.png", 1)
