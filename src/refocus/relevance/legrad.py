"""LeGrad: a map of attention gradients alone, of every block's own reading of the class.

Bousselham, Boggust, Chaybouti, Strobelt, Kuehne, "LeGrad: An Explainability Method for Vision
Transformers via Feature Formation Sensitivity" (ICCV 2025). Axes: B images, H heads, N tokens, h x
w patches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from refocus.relevance.answers import logits_of
from refocus.relevance.attention import attention_maps
from refocus.relevance.forms import on_grid
from refocus.relevance.scores import Target, refuse_untrained, score, slopes
from refocus.relevance.switches import mine
from refocus.vit.families import view
from refocus.vit.views import View, unsupported
from refocus.vit.wrappers import unwrap


def layer_map(gradient: Tensor) -> Tensor:
    """One block's map: positive part of d s / d A, mean over heads and query tokens.

    Axes: `[B, H, N, N]` -> `[B, N]`.
    """
    return gradient.clamp(min=0).mean((1, 2))


def legrad_patches(
    model: nn.Module, images: Tensor, targets: Target, *, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Logits `[B, K]` and the raw map `[B, h, w]` of the classes `targets` `[B]`.

    Without `targets`, of the predicted ones. The map is the mean of `layer_map` over blocks.

    The score s of a block is the target's logit when what follows the blocks reads that block's
    tokens instead of the last ones. The map consists of gradients alone, so a loss on it reaches
    the weights through the second derivative or not at all: `create_graph` keeps what that needs.
    """
    reader = _blocks_of(model)
    with attention_maps(model) as recorded, _block_outputs(reader.blocks) as outputs:
        logits = logits_of(model, images)
    maps = list(recorded[: len(outputs)])  # a pooling by attention comes after the blocks
    if create_graph:
        refuse_untrained(model, maps, maps, by_gradient=True)
    targets = logits.argmax(1) if targets is None else targets
    precision = torch.promote_types(maps[0].dtype, torch.float32)  # bfloat16 maps add up in float32
    total = torch.zeros(len(images), maps[0].shape[-1], dtype=precision, device=images.device)
    for depth, attention in enumerate(maps):
        with attention_maps(model), _replayed(reader.blocks, outputs, depth):
            answer = logits_of(unwrap(model), images)
        (gradient,) = slopes(score(answer, targets), [attention], within_graph=create_graph)
        assert gradient is not None  # every block's tokens are read through its attention
        total = total + layer_map(gradient.to(precision)) / len(maps)
    return logits, on_grid(model, reader, total, images)


def _blocks_of(model: nn.Module) -> View:
    """How the model is read, where LeGrad can be told of it."""
    reader = view(model)
    if not isinstance(reader, View):
        raise unsupported(model, "LeGrad needs to know its blocks")
    if reader.branches > 1:
        raise unsupported(model, "LeGrad is of one attention map a block, not of several in one")
    return reader


@contextmanager
def _block_outputs(blocks: Sequence[nn.Module]) -> Iterator[list[Any]]:
    """Within the `with`, a pass fills the list with what each block returns."""
    outputs: list[Any] = []
    handles = [
        block.register_forward_hook(mine(lambda _module, _args, given: outputs.append(given)))
        for block in blocks
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replayed(blocks: Sequence[nn.Module], outputs: Sequence[Any], depth: int) -> Iterator[None]:
    """Within the `with`, blocks compute nothing: the last returns what the one at `depth` did.

    So what follows the blocks reads those tokens, whatever the library calls it. Other threads'
    passes are as they were.
    """
    given = [*outputs[: len(blocks) - 1], outputs[depth]]
    before = [vars(block).get("forward") for block in blocks]  # of the caller's own, if any
    try:
        for block, output in zip(blocks, given, strict=True):
            # an attribute of the instance comes before the method of its class
            block.forward = _instead(block.forward, output)
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is not None:
                block.forward = own
            else:
                vars(block).pop("forward", None)


def _instead(forward: Callable[..., Any], output: Any) -> Callable[..., Any]:
    """In this thread the output, in any other what `forward` gives."""
    owner = threading.get_ident()

    def replayed(*given: Any, **named: Any) -> Any:
        return output if threading.get_ident() == owner else forward(*given, **named)

    return replayed
