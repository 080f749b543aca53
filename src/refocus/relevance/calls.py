"""Calls of torch's attention, caught where all libraries make them, and the map of one.

Axes: B images, H heads, L queries, N tokens, d channels of a head.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from refocus.errors import InputError


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


class Intercept(TorchFunctionMode):
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
