"""Record the attention maps of a forward pass, and leave no trace.

Axes: B images, H heads, N tokens, h x w patches.

timm, transformers and torchvision all end in one function of torch, `scaled_dot_product_attention`
(torchvision by way of `multi_head_attention_forward`). So the maps are recorded there, by a torch
function mode that is local to the thread, and a user's own model that calls these functions is
recorded as well. A model is recorded by one thread at a time; others wait.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from refocus.errors import InputError
from refocus.vit.families import View, two_tokens, unsupported, unwrap, view


def attention_map(
    query: Tensor, key: Tensor, bias: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias): query `[..., L, d]`, key `[..., N, d]` -> `[..., L, N]`,
    rows sum to 1.
    """
    scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(
        -2, -1
    )
    if causal:
        bias = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if bias is not None:
        scores = (
            scores.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else scores + bias
        )
    return scores.softmax(-1)


@dataclass(frozen=True)
class Layer:
    """What a map is formed of, and what became of it: query `[B, H, L, d]`, key and value `[B, H,
    N, d]`, output `[B, H, L, d]`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None
    scale: float | None
    causal: bool
    output: Tensor


class _Intercept(TorchFunctionMode):
    """Hands each call of torch's attention to `attend`."""

    def __init__(
        self,
        attend: Callable[
            [Tensor, Tensor, Tensor, Tensor | None, float, bool, float | None], Tensor
        ],
    ) -> None:
        super().__init__()
        self._attend = attend

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self.attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self.multi_head(*args, **kwargs)
        return func(*args, **kwargs)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
        return self._attend(query, key, value, attn_mask, dropout_p, is_causal, scale)

    def multi_head(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """nn.MultiheadAttention as image models use it, tokens first: `[N, B, D]`."""
        given = _MULTI_HEAD.bind(*args, **kwargs).arguments
        if used := [
            name for name in _UNREAD if given.get(name) is not None and given[name] is not False
        ]:
            raise InputError(f"nn.MultiheadAttention with {', '.join(used)} is not supported")
        # images first: a linear layer on the transposed tokens would run as one product per image
        tokens = [given[name].transpose(0, 1) for name in ("query", "key", "value")]
        weight, bias = given["in_proj_weight"], given["in_proj_bias"]
        if given["query"] is given["key"] is given["value"]:  # one product in place of three
            projected = F.linear(tokens[0], weight, bias).chunk(3, -1)
        else:
            biases = (None,) * 3 if bias is None else bias.chunk(3)
            projected = tuple(
                F.linear(x, w, b) for x, w, b in zip(tokens, weight.chunk(3), biases, strict=True)
            )
        query, key, value = (
            x.unflatten(-1, (given["num_heads"], -1)).transpose(1, 2) for x in projected
        )  # [B, H, N, d]
        attended = self.attend(
            query, key, value, dropout_p=given["dropout_p"] if given.get("training", True) else 0.0
        )
        weights = (
            attention_map(query, key, None, None, False)
            if given.get("need_weights", True)
            else None
        )
        if weights is not None and given.get("average_attn_weights", True):
            weights = weights.mean(1)
        out = F.linear(
            attended.transpose(1, 2).flatten(2), given["out_proj_weight"], given["out_proj_bias"]
        )
        return out.transpose(0, 1), weights


_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)
_UNREAD = (
    "bias_k",
    "bias_v",
    "add_zero_attn",
    "key_padding_mask",
    "attn_mask",
    "use_separate_proj_weight",
    "static_k",
    "static_v",
)


def attention_maps(model: nn.Module) -> AbstractContextManager[list[Tensor]]:
    """Within the `with`, each forward pass fills the yielded list with its maps, layer by layer:
    `[B, H, N, N]`, rows sum to 1.

    A pooling query's map comes last, `[B, H, 1, N]`. The maps are nodes of the autograd graph.
    Where nothing before a map needs a gradient (frozen weights), the map itself becomes the leaf
    that does. What would hide a map is off inside and restored after, also on error: eager and
    fused variants that avoid torch's function, and gradient checkpointing, which would form the map
    anew in the backward pass, outside of the `with`.

    Raises:
        InputError: an unsupported model.
    """
    reader = view(model)
    return recorded(unwrap(model)) if isinstance(reader, View) else reader.attention_maps()


@contextmanager
def recorded(model: nn.Module, layers: Sequence[nn.Module] | None = None) -> Iterator[list[Tensor]]:
    """The `attention_maps` of a model of your own (docs/extending.md).

    layers: modules whose output is a map, where the model forms it by itself. None: it calls
        torch's `scaled_dot_product_attention` or `nn.MultiheadAttention`, as most do.
    """
    maps: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, attention: Tensor) -> None:
        maps.append(_differentiable(attention))

    def form(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        dropout: float,
        causal: bool,
        scale: float | None,
    ) -> Tensor:
        maps.append(
            _differentiable(F.dropout(attention_map(query, key, bias, scale, causal), dropout))
        )
        return maps[-1] @ value

    handles = [layer.register_forward_hook(mine(keep)) for layer in layers or ()]
    try:
        with _alone(model, maps), nullcontext() if layers else _Intercept(form):
            yield maps
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def attention_layers(model: nn.Module) -> Iterator[list[Layer]]:
    """As `attention_maps`, but no map is formed: each forward pass fills the list with what they
    would be formed of, as fast as torch's fused attention is.

    Raises:
        InputError: an unsupported model, or one that forms its maps by itself, or attention
            dropout, whose map cannot be had again.
    """
    if not isinstance(view(model), View):
        raise unsupported(unwrap(model), "it records its own maps, which cannot be computed anew")
    inner = unwrap(model)
    layers: list[Layer] = []

    def keep(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        dropout: float,
        causal: bool,
        scale: float | None,
    ) -> Tensor:
        if dropout:
            raise unsupported(
                inner, f"attention dropout of {dropout:g}: such maps cannot be computed anew"
            )
        output = F.scaled_dot_product_attention(
            query, key, value, bias, is_causal=causal, scale=scale
        )
        layers.append(Layer(query, key, value, bias, scale, causal, _differentiable(output)))
        return layers[-1].output

    with _alone(inner, layers), _Intercept(keep):
        yield layers


@contextmanager
def limited_attention(model: nn.Module, allowed: Tensor) -> Iterator[None]:
    """Within the `with`, tokens see only those that `allowed`, bool `[N, N]`, says; a pooling query
    sees all.

    Raises:
        InputError: an unsupported model, or one that forms its maps by itself.
    """
    if not isinstance(view(model), View):
        raise unsupported(
            unwrap(model), "it forms its attention by itself, so it cannot be limited"
        )

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        dropout: float,
        causal: bool,
        scale: float | None,
    ) -> Tensor:
        if query.shape[-2] == key.shape[-2]:
            near = allowed.to(query.device)
            bias = (
                near
                if bias is None
                else bias & near
                if bias.dtype == torch.bool
                else bias.masked_fill(~near, -torch.inf)
            )
        return F.scaled_dot_product_attention(query, key, value, bias, dropout, causal, scale=scale)

    with _alone(unwrap(model), []), _Intercept(attend):
        yield


def last_linear_input(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[B, K]`, and the features `[B, D]` that the classifier reads: what the last linear
    layer of the pass is given, or with two heads the last two, side by side.

    Raises:
        InputError: a model without a linear layer.
    """
    seen: list[Tensor] = []
    reader = view(model)
    heads = 2 if isinstance(reader, View) and reader.readout is two_tokens else 1

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is F.linear:
                seen[:] = [*seen, args[0]][-heads:]
            return func(*args, **(kwargs or {}))

    with Watch():
        logits = logits_of(model, images)
    if not seen:
        raise unsupported(unwrap(model), "no linear layer reads its features")
    return logits, torch.cat(seen, dim=-1)


_LOCKS: WeakKeyDictionary[nn.Module, AbstractContextManager[bool]] = WeakKeyDictionary()


def exclusive(model: nn.Module) -> AbstractContextManager[bool]:
    """A lock for what is switched on a model and switched back: two threads that do so in turns
    would leave it switched.
    """
    return _LOCKS.setdefault(unwrap(model), threading.RLock())


def mine(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook on a module that other threads use as well: it heeds this thread's passes alone."""
    owner = threading.get_ident()
    return lambda *args: hook(*args) if threading.get_ident() == owner else None


@contextmanager
def _alone(model: nn.Module, found: list[Any]) -> Iterator[None]:
    """This thread's passes through the model, with plain attention; each empties the list first."""
    with exclusive(model), _plain_attention(model):
        handle = model.register_forward_pre_hook(mine(lambda *_: found.clear()))
        try:
            yield
        finally:
            handle.remove()


def _differentiable(attention: Tensor) -> Tensor:
    if torch.is_grad_enabled() and not attention.requires_grad:
        attention.requires_grad_()
    return attention


_SWITCHES = {"fused_attn": True, "grad_checkpointing": False, "gradient_checkpointing": False}


@contextmanager
def _plain_attention(model: nn.Module) -> Iterator[None]:
    """Every layer calls torch's function, at once."""
    layers = [
        (m, name, getattr(m, name))
        for m in model.modules()
        for name in _SWITCHES
        if name in vars(m)
    ]
    configs = list(
        {
            id(c): c for m in model.modules() for c in _with_parts(getattr(m, "config", None))
        }.values()
    )
    kinds = [config._attn_implementation for config in configs]
    try:
        for module, name, _ in layers:
            setattr(module, name, _SWITCHES[name])
        for config in configs:
            config._attn_implementation = "sdpa"
        yield
    finally:
        for module, name, value in layers:
            setattr(module, name, value)
        for config, kind in zip(configs, kinds, strict=True):
            config._attn_implementation = kind


def _with_parts(config: Any) -> list[Any]:
    """A configuration of transformers before those inside of it, which setting it sets too."""
    if not hasattr(config, "_attn_implementation"):
        return []
    parts = [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]
    return [config, *(inner for part in parts for inner in _with_parts(part))]


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """One forward pass -> logits `[B, K]`; transformers' models wrap theirs in a record."""
    output = model(images)
    return output if isinstance(output, Tensor) else output.logits
