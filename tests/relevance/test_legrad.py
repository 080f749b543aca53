"""LeGrad against its equation."""

from __future__ import annotations

import torch
from torch import Tensor

from refocus.relevance.attention import attention_maps
from refocus.relevance.legrad import legrad_patches
from tests.makers import Build, masked_batch


def test_legrad_is_the_mean_over_blocks_of_positive_attention_gradients(tiny: Build) -> None:
    """A literal twin.

    For each block a forward pass of its own, the classifier on that block's tokens.
    """
    model, (images, _, labels) = tiny().double(), masked_batch()
    images = images.double()
    _, found = legrad_patches(model, images, labels, create_graph=False)
    maps = []
    for depth in range(len(model.blocks)):
        with attention_maps(model) as recorded:
            tokens: list[Tensor] = []
            handle = model.blocks[depth].register_forward_hook(
                lambda _m, _a, out, tokens=tokens: tokens.append(out)
            )
            model(images)
            handle.remove()
        score = model.head(model.norm(tokens[0])[:, 0])[torch.arange(4), labels].sum()
        (gradient,) = torch.autograd.grad(score, recorded[depth])
        maps.append(gradient.relu().mean((1, 2))[:, 1:])
    torch.testing.assert_close(found.flatten(1), torch.stack(maps).mean(0))
