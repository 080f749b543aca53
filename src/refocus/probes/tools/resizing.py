"""A Vision Transformer on patches of another size, without training.

The kernel of the patch embedding is resampled by the pseudo-inverse of resizing (Beyer et al.,
FlexiViT, CVPR 2023), and position embeddings to the new grid. The kernel itself is not touched:
`<pinv(R)^T w, x> = <w, pinv(R) x>`, so each patch is resized in its place, which all libraries can.

Axes: B images, g x k patches of p x q pixels.
"""

from __future__ import annotations

import inspect
import warnings
from copy import deepcopy
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from refocus.errors import InputError
from refocus.vit.families import covered_pixels, family, view
from refocus.vit.loading import preprocessing
from refocus.vit.views import View, unsupported
from refocus.vit.wrappers import unwrap

Size = tuple[int, int]


def patch_of(model: nn.Module) -> Size:
    """Rows and columns of pixels of a patch."""
    size = preprocessing(model)["input_size"][1:]
    rows, columns = view(model).grid(*size)
    height, width = covered_pixels(model, size)
    return height // rows, width // columns


def with_patches(pixels: Tensor, old: Size, new: Size) -> Tensor:
    """Images cut into patches of `new` size, each as a kernel of `old` size is to see it.

    `[B, 3, H, W]` -> `[B, 3, g p, k q]` for old patches of p x q and as many new ones as fit best
    (the images are resized to a multiple of `new` before).
    """
    sides = zip(pixels.shape[-2:], new, strict=True)
    rows, columns = (max(1, round(side / patch)) for side, patch in sides)
    size = (rows * new[0], columns * new[1])
    if size != tuple(pixels.shape[-2:]):
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    cells = pixels.unflatten(3, (columns, new[1])).unflatten(2, (rows, new[0]))
    vertical, horizontal = (_inverse(a, b).to(pixels) for a, b in zip(old, new, strict=True))
    seen: Tensor = torch.einsum("ap,bcgpkq,dq->bcgakd", vertical, cells, horizontal)
    return seen.flatten(4, 5).flatten(2, 3)


def _inverse(old: int, new: int) -> Tensor:
    """Pseudo-inverse of resizing `old` pixels to `new`, bicubic with antialiasing: `[old, new]`."""
    if old == new:
        return torch.eye(old)
    basis = torch.eye(old, dtype=torch.float64)[None, None]
    resize = F.interpolate(basis, (new, old), mode="bicubic", antialias=True)[0, 0]
    inverse: Tensor = torch.linalg.pinv(resize).float()
    return inverse


def on_grid(model: nn.Module, grid: Size) -> nn.Module:
    """A copy of the model that takes inputs of so many of its patches.

    Raises:
        InputError: a model whose position embeddings cannot be resampled.
    """
    reader, known = view(model), family(model)
    if not isinstance(reader, View) or known is None:
        raise unsupported(unwrap(model), "it does not say how its positions are embedded")
    copy: Any = deepcopy(unwrap(model)).eval()
    sides = patch_of(model)
    size = (grid[0] * sides[0], grid[1] * sides[1])
    if known[1].library == "timm":
        with warnings.catch_warnings():  # of how timm indexes BEiT's table of relative positions
            warnings.filterwarnings("ignore", module="timm", category=UserWarning)
            copy.set_input_size(img_size=size)
    elif known[1].library == "torchvision":
        _torchvision(copy, size, grid, reader)
    else:
        _interpolating(copy)
    found: nn.Module = copy
    return found


def _torchvision(copy: Any, size: Size, grid: Size, reader: View) -> None:
    if size[0] != size[1]:
        raise InputError(
            f"VisionTransformer of torchvision: an input of {size[0]} x {size[1]}; it takes square "
            "ones"
        )
    old = reader.grid(copy.image_size, copy.image_size)
    positions = copy.encoder.pos_embedding
    copy.image_size = size[0]
    copy.encoder.pos_embedding = nn.Parameter(
        resample_abs_pos_embed(positions, grid, old, num_prefix_tokens=1)
    )


def _interpolating(copy: nn.Module) -> None:
    """Transformers' models resample by themselves where they are asked to in each call."""
    flag = "interpolate_pos_encoding"

    def ask(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, flag: True}

    for module in (copy, *(m for m in copy.modules() if hasattr(m, flag))):
        if flag in inspect.signature(module.forward).parameters:
            module.register_forward_pre_hook(ask, with_kwargs=True)
