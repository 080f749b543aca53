"""Record the attention maps of a forward pass, and leave no trace. Axes: B images, H heads, N tokens, h x w patches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from refocus.errors import InputError

_POOLS = ("token", "avg")


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside a distributed wrapper."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def vision_transformer(model: nn.Module) -> Any:
    """The supported timm VisionTransformer inside `model`; anything else is refused with the reason and the alternative."""
    vit = unwrap(model)
    name = type(vit).__name__
    use = "use a plain Vision Transformer (timm's vit_* or deit_* classifiers)"
    if not isinstance(vit, VisionTransformer):
        raise InputError(f"{name}: not a timm VisionTransformer, so it has no global attention maps to follow; {use}")
    if isinstance(vit, VisionTransformerDistilled):
        raise InputError(f"{name}: its prediction is read from two tokens through two heads, which is not supported yet; {use}")
    if vit.global_pool not in _POOLS or vit.attn_pool is not None:
        raise InputError(f"{name}: pooling {vit.global_pool!r} is not supported; legal are {', '.join(_POOLS)}")
    for block in vit.blocks:  # a subclass or relative may form its map elsewhere (differential attention does)
        if type(getattr(block, "attn", None)) is not Attention:
            kind = type(getattr(block, "attn", block)).__name__
            raise InputError(f"{name}: its blocks have {kind}, whose attention map is not supported; {use}")
    return vit


@contextmanager
def attention_maps(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within the `with`, each forward pass fills the yielded list with its maps, block by block: `[B, H, N, N]`, rows sum to 1.

    The maps are nodes of the autograd graph. Where nothing before a map needs a gradient (frozen weights), the map itself
    becomes the leaf that does. Fused attention, which never forms a map, is off inside and restored after, also on error.
    """
    layers = [block.attn for block in vision_transformer(model).blocks]
    fused = [layer.fused_attn for layer in layers]
    maps: list[Tensor] = []

    def start(*_: object) -> None:
        maps.clear()

    def record(_module: nn.Module, _args: object, attention: Tensor) -> None:
        if torch.is_grad_enabled() and not attention.requires_grad:
            attention.requires_grad_()
        maps.append(attention)

    # attn_drop receives the softmax; its output is the map that multiplies the values
    handles = [unwrap(model).register_forward_pre_hook(start)]
    handles += [layer.attn_drop.register_forward_hook(record) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield maps
    finally:
        for handle in handles:
            handle.remove()
        for layer, flag in zip(layers, fused, strict=True):
            layer.fused_attn = flag


def grid(model: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Patches per column and row for an input of this size."""
    return vision_transformer(model).patch_embed.dynamic_feat_size((height, width))


def prefix_tokens(model: nn.Module) -> int:
    """Tokens before the patches: class token and registers."""
    return vision_transformer(model).num_prefix_tokens


def readout(model: nn.Module, tokens: int) -> Tensor:
    """How the classifier reads the last tokens, as weights `[N]` that sum to 1: the class token, or the mean over patches."""
    vit = vision_transformer(model)
    weights = torch.zeros(tokens, dtype=torch.float64)  # 1/n exact enough for a float64 model; the caller narrows it
    if vit.global_pool == "token":
        weights[0] = 1
    else:
        first = 0 if vit.pool_include_prefix else vit.num_prefix_tokens
        weights[first:] = 1 / (tokens - first)
    return weights
