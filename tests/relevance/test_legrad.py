"""LeGrad against its equation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from refocus.relevance.attention import attention_maps
from refocus.relevance.legrad import legrad_patches
from refocus.relevance.maps import MAPS
from tests.makers import Build, masked_batch


def test_other_threads_and_a_forward_of_ones_own_go_on_as_before(tiny: Build) -> None:
    model, (images, _, labels) = tiny(), masked_batch()
    plain = model(images)
    makers = {
        "legrad": lambda: legrad_patches(model, images, labels, create_graph=False)[1],
        "gradcam": lambda: MAPS["gradcam"].make(model, images, labels, False)[1],
    }
    expected = {name: make() for name, make in makers.items()}
    inner, calls, answers = model.blocks[0].forward, [], []

    def own(*given: Any, **named: Any) -> Tensor:
        calls.append(1)
        return inner(*given, **named)

    owner = threading.get_ident()

    def beside(*_: object) -> None:
        if threading.get_ident() == owner:
            with ThreadPoolExecutor(1) as pool:
                answers.append(pool.submit(model, images).result())

    model.blocks[0].forward = own
    handle = model.blocks[1].register_forward_pre_hook(beside)  # in the midst of each pass
    for name, make in makers.items():
        torch.testing.assert_close(make(), expected[name])
    handle.remove()
    assert len(answers) == 1 + len(model.blocks) + 1
    assert all(torch.equal(answer, plain) for answer in answers)
    assert vars(model.blocks[0])["forward"] is own
    assert "forward" not in vars(model.blocks[1])
    calls.clear()
    model(images)
    assert calls


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
