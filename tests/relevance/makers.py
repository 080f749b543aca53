"""Variants of the tiny model, and a batch for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

VARIANTS: dict[str, dict[str, Any]] = {
    "class token": {},
    "no prefix, mean of patches": {"class_token": False, "global_pool": "avg"},
    "class token, mean of patches": {"global_pool": "avg"},
    "mean over all tokens": {"global_pool": "avg", "pool_include_prefix": True},
    "four registers": {"reg_tokens": 4},
    "non-square": {"img_size": (16, 40)},
    "patch 4": {"patch_size": 4, "img_size": 16},
    "layer scale, qk norm": {"init_values": 0.5, "qk_norm": True},
    "one head": {"num_heads": 1},
    "dropout": {"attn_drop_rate": 0.3, "drop_rate": 0.3},
}


def batch(model: nn.Module, count: int = 3) -> Tensor:
    return torch.randn(count, 3, *model.patch_embed.img_size)
