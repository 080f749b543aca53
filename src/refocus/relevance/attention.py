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
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from refocus.errors import InputError
from refocus.vit.families import View, runnable, two_tokens, unsupported, unwrap, view
from refocus.vit.inputs import check_model


def attention_map(
    query: Tensor, key: Tensor, bias: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias), whose rows sum to 1.

    Axes: query `[..., L, d]`, key `[..., N, d]` -> `[..., L, N]`.
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
class Call:
    """One call of torch's attention, with torch's names and in its order.

    query `[B, H, L, d]`; key and value `[B, H, N, d]`, of fewer heads with `enable_gqa`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    def ungrouped(self) -> Call:
        """The same with a key and a value for each head."""
        if not self.enable_gqa:
            return self
        repeats = self.query.shape[-3] // self.key.shape[-3]
        key, value = (x.repeat_interleave(repeats, -3) for x in (self.key, self.value))
        return replace(self, key=key, value=value, enable_gqa=False)

    def map(self) -> Tensor:
        """The attention map `[B, H, L, N]`, before dropout."""
        return attention_map(self.query, self.key, self.attn_mask, self.scale, self.is_causal)

    def fused(self) -> Tensor:
        """What torch's own function returns, `[B, H, L, d]`."""
        given = (self.query, self.key, self.value, self.attn_mask, self.dropout_p, self.is_causal)
        return F.scaled_dot_product_attention(*given, scale=self.scale)


@dataclass(frozen=True)
class Layer:
    """What a map is formed of, and the output `[B, H, L, d]` that it led to."""

    call: Call
    output: Tensor


Attend = Callable[[Call], Tensor]


class _Intercept(TorchFunctionMode):
    """Hands each call of torch's attention to `attend`."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attend = attend

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self.attend(Call(*args, **kwargs).ungrouped())
        if func is F.multi_head_attention_forward:
            return self.multi_head(*args, **kwargs)
        return func(*args, **kwargs)

    def multi_head(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """nn.MultiheadAttention as image models use it, tokens first: `[N, B, D]`."""
        given = _MULTI_HEAD.bind(*args, **kwargs).arguments
        if used := [
            name for name in _UNREAD if given.get(name) is not None and given[name] is not False
        ]:
            raise InputError(f"nn.MultiheadAttention with {', '.join(used)} is not supported")
        # images first: a linear layer on the transposed tokens would run as one product per image
        heads: int = given["num_heads"]
        query, key, value = (
            x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2) for x in _projected(given)
        )  # [B, H, N, d]
        dropout = given["dropout_p"] if given.get("training", True) else 0.0
        attended = self.attend(Call(query, key, value, dropout_p=dropout))
        weights = None
        if given.get("need_weights", True):
            weights = attention_map(query, key, None, None, False)
            weights = weights.mean(1) if given.get("average_attn_weights", True) else weights
        out = F.linear(
            attended.transpose(1, 2).flatten(2), given["out_proj_weight"], given["out_proj_bias"]
        )
        return out.transpose(0, 1), weights


def _projected(given: dict[str, Any]) -> Sequence[Tensor]:
    """Query, key and value of nn.MultiheadAttention, `[B, N, D]` each."""
    # images first: a linear layer on the transposed tokens would run as one product per image
    tokens = [given[name].transpose(0, 1) for name in ("query", "key", "value")]
    weight, bias = given["in_proj_weight"], given["in_proj_bias"]
    if given["query"] is given["key"] is given["value"]:  # one product in place of three
        return F.linear(tokens[0], weight, bias).chunk(3, -1)
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    return [F.linear(x, w, b) for x, w, b in zip(tokens, weight.chunk(3), biases, strict=True)]


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
def recorded(model: nn.Module, layers: Sequence[nn.Module] | None = None) -> Iterator[list[Tensor]]:
    """Record the attention maps of a model of your own, for its method `attention_maps`.

    docs/extending.md shows the whole of such a model.

    Args:
        model: the module whose forward passes are recorded.
        layers: its submodules whose output is a map, first layer first, where it forms its maps by
            itself. None: it calls torch's `scaled_dot_product_attention` or
            `nn.MultiheadAttention`, as most do.

    Yields:
        The list that a pass fills: `[B, H, N, N]` for B images, H heads and N tokens.

    Raises:
        InputError: `model` or one of `layers` is no module.

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
    for position, layer in enumerate(layers or ()):
        check_model(layer, f"layers[{position}]")
    maps: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, attention: Tensor) -> None:
        maps.append(_differentiable(attention))

    def form(call: Call) -> Tensor:
        maps.append(_differentiable(F.dropout(call.map(), call.dropout_p)))
        return maps[-1] @ call.value

    handles = [layer.register_forward_hook(mine(keep)) for layer in layers or ()]
    try:
        with _alone(model, maps), nullcontext() if layers else _Intercept(form):
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
        layers.append(Layer(call, _differentiable(call.fused())))
        return layers[-1].output

    with _alone(inner, layers), _Intercept(keep):
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

    with _alone(unwrap(model), []), _Intercept(attend):
        yield


class _Watch(TorchFunctionMode):
    """Keeps what the last `heads` linear layers of a pass are given."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.seen: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is F.linear:
            self.seen = [*self.seen, args[0]][-self.heads :]
        return func(*args, **(kwargs or {}))


def last_linear_input(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[B, K]`, and the features `[B, D]` that the classifier reads.

    These are what the last linear layer of the pass is given, or with two heads the last two, side
    by side.

    Raises:
        InputError: a model without a linear layer.
    """
    reader = view(model)
    both = isinstance(reader, View) and reader.readout is two_tokens
    with _Watch(2 if both else 1) as watch:
        logits = logits_of(model, images)
    if not watch.seen:
        raise unsupported(unwrap(model), "no linear layer reads its features")
    return logits, torch.cat(watch.seen, dim=-1)


_LOCKS: WeakKeyDictionary[nn.Module, AbstractContextManager[bool]] = WeakKeyDictionary()


def exclusive(model: nn.Module) -> AbstractContextManager[bool]:
    """A lock for what is switched on a model and switched back.

    Two threads that do so in turns would leave it switched.
    """
    return _LOCKS.setdefault(unwrap(model), threading.RLock())


def mine(hook: Callable[..., None]) -> Callable[..., None]:
    """A hook on a module that other threads use as well: it acts only on this thread's passes."""
    owner = threading.get_ident()
    return lambda *args: hook(*args) if threading.get_ident() == owner else None


@contextmanager
def _alone(model: nn.Module, found: list[Any]) -> Iterator[None]:
    """This thread's passes through the model, with plain attention; each empties the list first."""
    with exclusive(model), _plain_attention(model), _Eager():
        handle = model.register_forward_pre_hook(mine(lambda *_: found.clear()))
        try:
            yield
        finally:
            handle.remove()


class _Eager:
    """Within the `with`, compiled modules run as written; compiled code calls none of our hooks.

    torch keeps one switch for all threads: the first one in turns it, the last one out turns it
    back.
    """

    _lock, _inside = threading.Lock(), 0
    _stance: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if _Eager._inside == 0:
                _Eager._stance = torch.compiler.set_stance("force_eager")
                _Eager._stance.__enter__()
            _Eager._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            _Eager._inside -= 1
            if _Eager._inside == 0:
                _Eager._stance.__exit__(*error)


def _differentiable(attention: Tensor) -> Tensor:
    if torch.is_grad_enabled() and not attention.requires_grad:
        attention.requires_grad_()
    return attention


_SWITCHES = {"fused_attn": True, "grad_checkpointing": False, "gradient_checkpointing": False}
_KIND = "_attn_implementation"  # of transformers' configurations; "sdpa" calls torch's function


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
    kinds = [getattr(config, _KIND) for config in configs]
    try:
        for module, name, _ in layers:
            setattr(module, name, _SWITCHES[name])
        for config in configs:
            setattr(config, _KIND, "sdpa")
        yield
    finally:
        for module, name, value in layers:
            setattr(module, name, value)
        for config, kind in zip(configs, kinds, strict=True):
            setattr(config, _KIND, kind)


def _with_parts(config: Any) -> list[Any]:
    """A configuration of transformers before those inside of it, which setting it sets too."""
    if not hasattr(config, _KIND):
        return []
    parts = [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]
    return [config, *(inner for part in parts for inner in _with_parts(part))]


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """One forward pass -> logits `[B, K]`; transformers' models wrap theirs in a record."""
    output = runnable(model)(images)
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits
