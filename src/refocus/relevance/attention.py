"""Record the attention maps of a forward pass, and leave no trace.

Axes: B images, H heads, N tokens, h x w patches.

timm, transformers and torchvision all end in one function of torch, `scaled_dot_product_attention`
(torchvision by way of `multi_head_attention_forward`). So the maps are recorded there, by a torch
function mode that is local to the thread (`calls`), and a user's own model that calls these
functions is recorded as well. What would hide a map is off meanwhile (`switches`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refocus.relevance.calls import Call, Intercept, Layer
from refocus.relevance.forms import with_heads, without_heads
from refocus.relevance.switches import alone, innermost, mine
from refocus.vit.families import view
from refocus.vit.inputs import check_model
from refocus.vit.views import View, unsupported
from refocus.vit.wrappers import unwrap


def attention_maps(model: nn.Module) -> AbstractContextManager[list[Tensor]]:
    """Record the attention maps of each forward pass within the `with`.

    A pass fills the yielded list with its maps, first layer first: `[B, H, N, N]` for B images, H
    heads and N tokens, each row summing to 1. A pooling query's map comes last, `[B, H, 1, N]`. The
    maps are nodes of the autograd graph; where nothing before a map needs a gradient (frozen
    weights), the map itself becomes the leaf that does. What would hide a map is off inside and
    restored after, also on error: eager and fused variants that avoid torch's function, compiled
    code, and gradient checkpointing, which would form the map anew in the backward pass, outside of
    the `with`.

    Args:
        model: a supported Vision Transformer; it may be compiled or wrapped.

    Returns:
        A context manager; the next pass of the same thread empties its list first.

    Raises:
        InputError: an unsupported model.

    Examples:
        >>> import torch, refocus
        >>> model = refocus.load("vit_tiny_patch16_224", pretrained=False)
        >>> with refocus.attention_maps(model) as maps:
        ...     logits = model(torch.zeros(1, 3, 224, 224))
        >>> len(maps), list(maps[0].shape)
        (12, [1, 3, 197, 197])
    """
    check_model(model)
    reader = view(model)
    return recorded(unwrap(model)) if isinstance(reader, View) else reader.attention_maps()


@contextmanager
def recorded(model: nn.Module, layers: Iterable[nn.Module] | None = None) -> Iterator[list[Tensor]]:
    """Record the attention maps of a model of your own, for its method `attention_maps`.

    docs/extending.md shows the whole of such a model.

    Args:
        model: the module whose forward passes are recorded.
        layers: its submodules whose output is a map, first layer first, where it forms its maps by
            itself. Parts of timm that have a switch `fused_attn` do so meanwhile: `attn_drop` then
            gives their map. None: the model calls torch's `scaled_dot_product_attention` or
            `nn.MultiheadAttention`, as most do.

    Yields:
        The list that a pass fills: `[B, H, N, N]` for B images, H heads and N tokens. A map
        `[B, N, N]` of a single head gets its axis.

    Raises:
        InputError: `model` or one of `layers` is no module, or, in a pass, attention of any other
            form.

    Examples:
        >>> import torch, refocus
        >>> attention = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
        >>> tokens = torch.zeros(1, 5, 8)
        >>> with refocus.recorded(attention) as maps:
        ...     output, _ = attention(tokens, tokens, tokens)
        >>> [list(attention_map.shape) for attention_map in maps]
        [[1, 2, 5, 5]]
    """
    check_model(model)
    own = list(layers or ())
    for position, layer in enumerate(own):
        check_model(layer, f"layers[{position}]")
    maps: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, attention: Tensor) -> Tensor | None:
        if not innermost(model, maps):
            return None
        maps.append(differentiable(with_heads(model, attention)))
        return without_heads(maps[-1], attention)

    def form(call: Call) -> Tensor:
        attention = F.dropout(with_heads(model, call.map()), call.dropout_p)
        maps.append(differentiable(attention))
        return without_heads(maps[-1] @ with_heads(model, call.value), call.value)

    handles = [layer.register_forward_hook(mine(keep)) for layer in own]
    try:
        with alone(model, maps, fused=not own), nullcontext() if own else Intercept(form):
            yield maps
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def attention_layers(model: nn.Module) -> Iterator[list[Layer]]:
    """As `attention_maps`, but no map is formed: the pass is as fast as torch's fused attention is.

    A pass fills the list with what the maps would be formed of.

    Raises:
        InputError: an unsupported model, or one that forms its maps by itself, or attention
            dropout, whose map cannot be had again.
    """
    if not isinstance(view(model), View):
        raise unsupported(unwrap(model), "it records its own maps, which cannot be computed anew")
    inner = unwrap(model)
    layers: list[Layer] = []

    def keep(call: Call) -> Tensor:
        if call.dropout_p:
            raise unsupported(
                inner, f"attention dropout of {call.dropout_p:g}: such maps cannot be computed anew"
            )
        layers.append(Layer(call, differentiable(call.fused())))
        return layers[-1].output

    with alone(inner, layers), Intercept(keep):
        yield layers


@contextmanager
def limited_attention(model: nn.Module, allowed: Tensor) -> Iterator[None]:
    """Within the `with`, tokens see only those that `allowed`, bool `[N, N]`, says.

    A pooling query sees all.

    Raises:
        InputError: an unsupported model, or one that forms its maps by itself.
    """
    if not isinstance(view(model), View):
        raise unsupported(
            unwrap(model), "it forms its attention by itself, so it cannot be limited"
        )

    def attend(call: Call) -> Tensor:
        if call.query.shape[-2] != call.key.shape[-2]:
            return call.fused()
        near, bias = allowed.to(call.query.device), call.attn_mask
        if bias is None:
            limited = near
        elif bias.dtype == torch.bool:
            limited = bias & near
        else:
            limited = bias.masked_fill(~near, -torch.inf)
        return replace(call, attn_mask=limited).fused()

    with alone(unwrap(model), []), Intercept(attend):
        yield


def differentiable(attention: Tensor) -> Tensor:
    """A node of the graph: a leaf, where nothing before it needs a gradient."""
    if torch.is_grad_enabled() and not attention.requires_grad:
        attention.requires_grad_()
    return attention
