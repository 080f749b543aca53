"""A Vision Transformer that no library knows, as docs/extending.md describes it.

The tests load it by `py:tests.own_vit:build`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import timm
import torch
from torch import Tensor, nn

import refocus
from tests.makers import NAMES


class Block(nn.Module):
    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.norm, self.qkv, self.map, self.by_hand = (
            nn.LayerNorm(16),
            nn.Linear(16, 48),
            nn.Softmax(-1),
            by_hand,
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (2, 8)).transpose(1, 2)
            for part in self.qkv(self.norm(x)).chunk(3, -1)
        )
        attend = nn.functional.scaled_dot_product_attention
        out = self.map(q @ k.transpose(2, 3) / 8**0.5) @ v if self.by_hand else attend(q, k, v)
        return x + out.transpose(1, 2).flatten(2)


class OwnViT(nn.Module):
    prefix = 0

    def __init__(self, by_hand: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.blocks = nn.Sequential(Block(by_hand), Block(by_hand))
        self.head = nn.Linear(16, 4)
        self.by_hand, self.num_classes = by_hand, 4
        self.pretrained_cfg = {
            "input_size": (3, 32, 32),
            "crop_pct": 1.0,
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "interpolation": "bicubic",
            "label_names": NAMES,
        }

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(images).flatten(2).transpose(1, 2)).mean(1))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return height // 8, width // 8

    def readout(self, tokens: int) -> Tensor:
        return torch.full((tokens,), 1 / tokens, dtype=torch.float64)

    def attention_maps(self) -> AbstractContextManager[list[Tensor]]:
        return refocus.recorded(
            self, [block.map for block in self.blocks] if self.by_hand else None
        )


def changed() -> nn.Module:
    """A model of timm that is not as `create_model` makes it."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, **sizes)
    for block in model.blocks:
        block.mlp.act = nn.ReLU()
    return model


def build() -> nn.Module:
    torch.manual_seed(0)
    return OwnViT()


@cache
def shared() -> nn.Module:
    """The same module each time."""
    return build()


def unseeded() -> nn.Module:
    """Other weights each time."""
    torch.seed()
    return OwnViT()
