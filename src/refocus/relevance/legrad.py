"""LeGrad: relevance from attention gradients alone, of every block's own reading of the class.

Bousselham, Boggust, Chaybouti, Strobelt, Kuehne, "LeGrad: An Explainability Method for Vision
Transformers via Feature Formation Sensitivity" (ICCV 2025). Axes: B images, H heads, N tokens, h x
w patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from refocus.relevance.attention import attention_maps, logits_of
from refocus.vit.families import View, family, unsupported, unwrap, view


def layer_map(gradient: Tensor) -> Tensor:
    """One block's map: positive part of d s / d A, mean over heads and query tokens.

    Axes: `[B, H, N, N]` -> `[B, N]`.
    """
    return gradient.clamp(min=0).mean((1, 2))


@contextmanager
def _block_outputs(blocks: list[nn.Module]) -> Iterator[list[Tensor]]:
    """Within the `with`, a pass fills the list with the tokens after each block, `[B, N, D]`."""
    outputs: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda _module, _args, tokens: outputs.append(tokens))
        for block in blocks
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def legrad_patches(
    model: nn.Module, images: Tensor, targets: Tensor | None, *, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Logits `[B, K]` and the raw map `[B, h, w]` of the classes `targets` `[B]`.

    Without `targets`, of the predicted ones. The map is the mean of `layer_map` over blocks.

    The score s of a block is the target's logit when the classifier reads that block's tokens
    instead of the last ones. The map consists of gradients alone, so a loss on it reaches the
    weights through the second derivative or not at all: `create_graph` keeps what that needs.
    """
    vit: Any = unwrap(model)  # norm and forward_head are what timm's families have in common
    reader = _timm_view(vit)
    with attention_maps(model) as maps, _block_outputs(reader.blocks) as tokens:
        logits = logits_of(model, images)
    targets = logits.argmax(1) if targets is None else targets
    precision = torch.promote_types(maps[0].dtype, torch.float32)  # bfloat16 maps add up in float32
    total = torch.zeros(len(images), maps[0].shape[-1], dtype=precision, device=images.device)
    for attention, after in zip(maps, tokens, strict=True):
        score = vit.forward_head(vit.norm(after)).gather(1, targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(
            score, attention, create_graph=create_graph, retain_graph=True
        )
        total = total + layer_map(gradient.to(total.dtype)) / len(tokens)
    height, width = reader.grid(*images.shape[-2:])
    return logits, total[:, reader.prefix :].reshape(len(images), height, width)


def _timm_view(vit: nn.Module) -> View:
    """How the model is read, where LeGrad can be told of it."""
    row, reader = family(vit), view(vit)
    known = row is not None and row[1].library == "timm"
    if not known or not isinstance(reader, View) or reader.branches > 1:
        raise unsupported(
            vit,
            "LeGrad lets the classifier read every block's tokens, which is written for timm's "
            "models alone",
        )
    if getattr(vit, "attn_pool", None) is not None:
        raise unsupported(
            vit,
            "its pooling by attention has no second derivative outside of the recording that "
            "LeGrad needs",
        )
    return reader
