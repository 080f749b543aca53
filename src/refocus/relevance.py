"""Relevance of each patch for one class: GAE (Chefer, Gur, Wolf, ICCV 2021; Appendix B of the method's paper).

Axes: B images, H heads, N tokens, h x w patches, `[height, width]` pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refocus.attention import attention_maps, grid, prefix_tokens, readout, vision_transformer
from refocus.errors import InputError
from refocus.records import Explanation


def attention_relevance(attention: Tensor, gradient: Tensor, row: Tensor) -> Tensor:
    """One block's share: `row @ mean_h(relu(G * A))`; A, G `[B, H, N, N]`, row `[B, N]` -> `[B, N]` (GAE Eq. 5)."""
    return torch.einsum("bn,bhnm->bm", row, (gradient * attention).clamp(min=0)) / attention.shape[1]


def relevance_row(attention: Sequence[Tensor], gradients: Sequence[Tensor], row: Tensor) -> Tensor:
    """The readout row of R after `R <- R + Abar R` over all blocks, R_0 = I (GAE Eq. 6); row `[B, N]` -> `[B, N]`.

    The row alone is carried, from the last block to the first: `r <- r + r Abar`. It equals the row of the full product,
    a vector-matrix product per block where the definition multiplies N x N matrices.
    """
    for a, g in zip(reversed(attention), reversed(gradients), strict=True):
        row = row + attention_relevance(a.to(row.dtype), g.to(row.dtype), row)
    return row


def upsample(patches: Tensor, size: Sequence[int]) -> Tensor:
    """Patch grid to pixels, bilinear: `[B, h, w]` -> `[B, height, width]`."""
    return F.interpolate(patches[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def minmax(maps: Tensor) -> Tensor:
    """Each map of `[B, height, width]` scaled to [0, 1]; a constant map becomes zeros, also in its gradient."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    spread = high - low
    return (maps - low) / torch.where(spread > 0, spread, torch.ones_like(spread))


def relevance_patches(
    model: nn.Module, images: Tensor, targets: Tensor | None, *, create_graph: bool, second_order: bool = False
) -> tuple[Tensor, Tensor]:
    """One forward pass and one autograd call: logits `[B, K]` and raw relevance `[B, h, w]` of `targets` `[B]` (None: predicted).

    create_graph: keep the graph, so that a loss on the relevance reaches the weights through A.
    second_order: let it reach them through G as well. The published code does not (G is a constant there).
    """
    with attention_maps(model) as maps:
        logits = model(images)
    targets = logits.argmax(1) if targets is None else targets
    score = logits.gather(1, targets[:, None]).sum()
    gradients = torch.autograd.grad(score, maps, create_graph=second_order, retain_graph=create_graph)
    tokens = maps[0].shape[-1]
    precision = torch.promote_types(maps[0].dtype, torch.float32)  # bfloat16 maps are accumulated in float32
    start = readout(model, tokens).to(images.device, precision).expand(len(images), tokens)
    row = relevance_row(maps, gradients, start)
    height, width = grid(model, *images.shape[-2:])
    return logits, row[:, prefix_tokens(model) :].reshape(-1, height, width)


def explain(model: nn.Module, images: Tensor, targets: Tensor | Sequence[int] | int | None = None) -> Explanation:
    """Where a ViT looks when it scores a class.

    Args:
        model: from `refocus.load`, or any plain supported module. It is read in eval mode and left as it was.
        images: normalized floats `[B, 3, height, width]` on the model's device.
        targets: class index per image `[B]`, one index for all, or None for each image's predicted class.

    Returns:
        Explanation: logits `[B, K]`, relevance `[B, height, width]` in [0, 1], patches `[B, h, w]` raw, targets `[B]`.

    Raises:
        InputError: an unsupported model, or images or targets of the wrong shape or range.

    >>> import torch, refocus
    >>> model = refocus.load("vit_tiny_patch16_224", pretrained=False)
    >>> refocus.explain(model, torch.zeros(2, 3, 224, 224)).patches.shape
    torch.Size([2, 14, 14])
    """
    vit = vision_transformer(model)
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(f"images: {list(images.shape)} {images.dtype}; legal are normalized floats [B, 3, height, width]")
    if vit.num_classes < 1:
        raise InputError("the model has no classifier head (0 classes), so there is no prediction to explain")
    wanted = None if targets is None else _class_indices(targets, len(images), vit.num_classes).to(images.device)
    with _eval_frozen(model), torch.enable_grad():
        logits, patches = relevance_patches(model, images, wanted, create_graph=False)
    logits, patches = logits.detach(), patches.detach()
    return Explanation(
        logits, minmax(upsample(patches, images.shape[-2:])), patches, logits.argmax(1) if wanted is None else wanted
    )


def _class_indices(targets: Tensor | Sequence[int] | int, count: int, classes: int) -> Tensor:
    indices = torch.as_tensor(targets)
    if indices.ndim == 0:
        indices = indices.expand(count)
    if indices.shape != (count,) or indices.is_floating_point():
        raise InputError(f"targets: {list(indices.shape)} {indices.dtype}; legal are {count} class indices, one for each image")
    if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < classes):
        raise InputError(f"targets: {indices.tolist()}; the model's classes are 0 to {classes - 1}")
    return indices.long()


@contextmanager
def _eval_frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no weight gradients (they would cost memory and nobody reads them); both restored."""
    modes = {module: module.training for module in model.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)
