"""What recorded maps must be like, so that a map of patches follows from them.

Axes: B images, H heads, N tokens, d channels of a head, h x w patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from refocus.vit.views import unsupported
from refocus.vit.wrappers import unwrap

_APART, _SINGLE = 4, 3  # axes of what attention is given and gives, with heads and without


def with_heads(model: nn.Module, values: Tensor) -> Tensor:
    """`[B, H, ...]` as it is; a single head `[B, ...]` gets its axis, `[B, 1, ...]`.

    Raises:
        InputError: another number of axes.
    """
    if values.ndim == _SINGLE:
        return values[:, None]
    if values.ndim != _APART:
        raise unsupported(
            unwrap(model),
            f"its attention has the form {list(values.shape)}; must be [B, H, N, d], or [B, N, d] "
            "of a single head",
        )
    return values


def without_heads(values: Tensor, like: Tensor) -> Tensor:
    """The reverse of `with_heads`, which was given `like`."""
    return values[:, 0] if like.ndim == _SINGLE else values


def refuse_other_axes(model: nn.Module, maps: Sequence[Tensor], images: Tensor) -> None:
    """Stop at maps that are not `[B, H, N, N]`, such as with the heads folded into the images.

    Raises:
        InputError: names the shape.
    """
    for attention in maps:
        if attention.ndim != _APART or len(attention) != len(images):
            raise unsupported(
                unwrap(model),
                f"a pass of {len(images)} images gives an attention map {list(attention.shape)}; "
                "must be [B, H, N, N], one of each head for each image",
            )


def on_grid(model: nn.Module, reader: Any, values: Tensor, images: Tensor) -> Tensor:
    """Values of the tokens `[B, N]` as a map of the patches `[B, h, w]`.

    Args:
        model: for the message.
        reader: how it is read.
        values: of the tokens before the patches as well, which are left out.
        images: that the pass was given.

    Raises:
        InputError: other tokens than those before the patches and one for each patch.
    """
    height, width = reader.grid(*images.shape[-2:])
    if values.shape[1] != reader.prefix + height * width:
        raise unsupported(
            unwrap(model),
            f"{values.shape[1]} tokens for {reader.prefix} before {height} x {width} patches: "
            "patch dropout, or another grid",
        )
    return values[:, reader.prefix :].reshape(len(images), height, width)
