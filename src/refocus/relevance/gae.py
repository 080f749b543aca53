"""Relevance of each patch for one class: GAE (Chefer, Gur, Wolf, ICCV 2021).

The method's paper has it in Appendix B. Axes: B images, H heads, N tokens, h x w patches,
`[height, width]` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from refocus.errors import InputError
from refocus.records import Explanation
from refocus.relevance.answers import logits_of
from refocus.relevance.attention import attention_layers, attention_maps
from refocus.relevance.calls import Call, attention_map
from refocus.relevance.forms import on_grid, refuse_other_axes
from refocus.relevance.scores import Target, refuse_untrained, score, slopes
from refocus.relevance.switches import evaluating
from refocus.vit.classes import head_size
from refocus.vit.families import covered_pixels, view
from refocus.vit.inputs import check_gradients, check_images, check_model, shown, whole
from refocus.vit.views import unsupported

_PAIRS = 32 * 261**2  # of tokens, that one head's maps hold at a time: 32 images of 16 x 16 patches


def attention_relevance(attention: Tensor, gradient: Tensor, row: Tensor) -> Tensor:
    """One block's share (GAE Eq. 5): `row @ mean_h(relu(G * A))`.

    Axes: A, G `[B, H, N, N]`, row `[B, N]` -> `[B, N]`.
    A is never negative, so relu(G * A) = relu(G) * A, which is linear in A: where G is a constant,
    as published, the derivative needs no more than relu(G) and the mean over heads.
    """
    if gradient.requires_grad:
        attention, gradient = attention.to(row.dtype), gradient.to(row.dtype)
        return (
            torch.einsum("bn,bhnm->bm", row, gradient.clamp(min=0) * attention) / attention.shape[1]
        )
    share: Tensor = _ConstantGradient.apply(attention, gradient, row)
    return share


class _ConstantGradient(torch.autograd.Function):
    """`attention_relevance` for a constant G.

    Autograd would hold two more maps and pass over them twice as often. Maps in bfloat16 are held
    as they are; products and sums are of the row's type.
    """

    @staticmethod
    def forward(ctx: Any, attention: Tensor, gradient: Tensor, row: Tensor) -> Tensor:
        mean = gradient.clamp(min=0).to(row.dtype).mul_(attention).mean(1)
        ctx.save_for_backward(gradient, mean, row)
        return (row[:, :, None] * mean).sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor]:
        gradient, mean, row = ctx.saved_tensors
        (grad,) = grads
        outer = row[:, :, None] * grad[:, None, :] / gradient.shape[1]
        by_attention = gradient.clamp(min=0).to(row.dtype).mul_(outer[:, None])
        return by_attention, None, (mean * grad[:, None, :]).sum(2)


def relevance_row(
    attention: Sequence[Tensor], gradients: Sequence[Tensor], row: Tensor, *, branches: int = 1
) -> Tensor:
    """The readout row of R after `R <- R + Abar R` over all blocks, R_0 = I (GAE Eq. 6).

    Axes: row `[B, N]` -> `[B, N]`. The row alone is carried, from the last block to the first:
    `r <- r + r Abar`. It equals the row of the full product, a vector-matrix product per block
    where the definition multiplies N x N matrices. Maps of `branches` layers that read the same
    tokens side by side add up: `r <- r + r (Abar_1 + Abar_2)`. A pooling query's map `[B, H, 1, M]`
    comes last and has no residual; it reads the last M tokens: `r <- r Abar`, row `[B, 1]` ->
    `[B, N]`.
    """
    pairs = zip(attention, gradients, strict=True)
    return _carry(
        [(a.shape[-2:], partial(attention_relevance, a, g)) for a, g in pairs], row, branches
    )


def _carry(
    shares: Sequence[tuple[torch.Size, Callable[[Tensor], Tensor]]], row: Tensor, branches: int
) -> Tensor:
    """`relevance_row` with each layer's (queries, keys) and its share as a function of the row."""
    (queries, keys), share = shares[-1]
    if queries != keys:
        pooled, shares = share(row), shares[:-1]
        row = F.pad(pooled, (shares[-1][0][1] - pooled.shape[1], 0))
    for last in range(len(shares), 0, -branches):
        row = row + torch.stack([share(row) for _, share in shares[last - branches : last]]).sum(0)
    return row


def upsample(patches: Tensor, size: Sequence[int], covered: Sequence[int] | None = None) -> Tensor:
    """Patch grid to pixels, bilinear: `[B, h, w]` -> `[B, height, width]`.

    covered: rows and columns of pixels that the patches cover (`families.covered_pixels`), beyond
        which the map is 0; None: all.
    """
    return stretched(patches[:, None], size, covered, mode="bilinear")[:, 0]


def normalized(
    patches: Tensor, size: Sequence[int], covered: Sequence[int] | None = None
) -> Tensor:
    """`minmax` of `upsample`, over the pixels that the patches cover; 0 beyond."""
    covered = size if covered is None else covered
    seen = [min(a, b) for a, b in zip(size, covered, strict=True)]
    return _framed(minmax(upsample(patches, seen, covered)), size, 0.0)


def stretched(
    patches: Tensor,
    size: Sequence[int],
    covered: Sequence[int] | None = None,
    *,
    mode: str = "nearest",
    beyond: float = 0.0,
) -> Tensor:
    """Values of patches over the pixels that these cover: `[B, C, h, w]` -> `[B, C, H, W]`.

    beyond: the value of the pixels that are in no patch.
    """
    covered = tuple(size if covered is None else covered)
    corners = None if mode == "nearest" else False
    return _framed(
        F.interpolate(patches, size=covered, mode=mode, align_corners=corners), size, beyond
    )


def _framed(maps: Tensor, size: Sequence[int], beyond: float) -> Tensor:
    """Maps of `size`, filled up or cut at the bottom and the right."""
    down, right = (to - now for to, now in zip(size, maps.shape[-2:], strict=True))
    return F.pad(maps, (0, right, 0, down), value=beyond) if down or right else maps


def minmax(maps: Tensor) -> Tensor:
    """Each map of `[B, height, width]` scaled to [0, 1].

    A constant map becomes zeros, also in its gradient.
    """
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    spread = high - low
    return (maps - low) / torch.where(spread > 0, spread, torch.ones_like(spread))


def relevance_patches(
    model: nn.Module,
    images: Tensor,
    targets: Target,
    *,
    create_graph: bool,
    second_order: bool = False,
    recompute: bool = False,
) -> tuple[Tensor, Tensor]:
    """One forward pass and one autograd call: logits `[B, K]` and raw relevance `[B, h, w]`.

    Args:
        model: a supported model.
        images: normalized floats `[B, 3, height, width]`.
        targets: class indices `[B]`, a function from logits to a score per image, or None for the
            predicted class.
        create_graph: keep the graph, so that a loss on the relevance reaches the weights through A.
        second_order: let it reach them through G as well. The published code does not (G is a
            constant there).
        recompute: form the maps of one layer at a time, and again in the backward pass, instead of
            keeping all (docs/performance.md).

    Raises:
        InputError: an unsupported model, or `recompute` with `second_order`.
    """
    reader = view(model)
    if recompute and second_order:
        raise InputError(
            "recompute: keeps no graph of the attention gradient, which second_order needs"
        )
    if recompute:
        logits, shares = _recomputed_shares(model, images, targets, create_graph)
    else:
        logits, shares = _kept_shares(model, images, targets, create_graph, second_order)
    if not shares:
        raise unsupported(
            model, "its answer does not depend on any attention map that was recorded"
        )
    queries = shares[-1][0][0]
    precision = torch.promote_types(logits.dtype, torch.float32)  # bfloat16 maps add up in float32
    start = reader.readout(queries).to(images.device, precision).expand(len(images), queries)
    row = _carry(shares, start, getattr(reader, "branches", 1))
    return logits, on_grid(model, reader, row, images)


Shares = list[tuple[torch.Size, Callable[[Tensor], Tensor]]]


def _kept_shares(
    model: nn.Module, images: Tensor, targets: Target, create_graph: bool, second_order: bool
) -> tuple[Tensor, Shares]:
    """All maps A are nodes of the graph, and G is the gradient by them."""
    with attention_maps(model) as maps:
        logits = logits_of(model, images)
    answer = score(logits, targets)
    if not maps:
        return logits, []
    refuse_other_axes(model, maps, images)
    gradients = slopes(answer, maps, within_graph=second_order, keep=create_graph)
    used = [
        (a, g) for a, g in zip(maps, gradients, strict=True) if g is not None
    ]  # a head that the classifier passes over
    if create_graph:
        refuse_untrained(model, [a for a, _ in used], maps, by_gradient=second_order)
    return logits, [(a.shape[-2:], partial(attention_relevance, a, g)) for a, g in used]


def _recomputed_shares(
    model: nn.Module, images: Tensor, targets: Target, create_graph: bool
) -> tuple[Tensor, Shares]:
    """No map is kept.

    The output of a layer is A V, so G = d/dA = (gradient by the output) V^T; A and G are formed
    where needed.
    """
    with attention_layers(model) as layers:
        logits = logits_of(model, images)
    answer = score(logits, targets)
    if not layers:
        return logits, []
    gradients = slopes(answer, [x.output for x in layers], keep=create_graph)
    used = [(x.call, g) for x, g in zip(layers, gradients, strict=True) if g is not None]
    if create_graph:
        formed = [x for call, _ in used for x in (call.query, call.key, call.attn_mask)]
        refuse_untrained(model, [x for x in formed if x is not None], [x.output for x in layers])
    shapes = [torch.Size((call.query.shape[-2], call.key.shape[-2])) for call, _ in used]
    return logits, [
        (shape, partial(_recomputed, call, g))
        for shape, (call, g) in zip(shapes, used, strict=True)
    ]


def _recomputed(call: Call, gradient: Tensor, row: Tensor) -> Tensor:
    """`attention_relevance` of maps that are dropped after use, also in the backward pass."""

    def share(query: Tensor, key: Tensor, gradient: Tensor, row: Tensor) -> Tensor:
        attention = attention_map(query, key, call.attn_mask, call.scale, call.is_causal)
        return attention_relevance(attention, gradient @ value.transpose(-2, -1), row)

    value = call.value.detach()
    inputs = (call.query, call.key, gradient, row)
    if not torch.is_grad_enabled():
        return share(*inputs)
    found: Tensor = checkpoint(share, *inputs, use_reentrant=False)
    return found


def explain(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | Sequence[int] | int | Callable[[Tensor], Tensor] | None = None,
) -> Explanation:
    """Where a Vision Transformer looks when it scores a class.

    Relevance by GAE (Chefer, Gur, Wolf, ICCV 2021, Eq. 5 and 6): attention times the positive part
    of its gradient, carried from the answer back to the patches.

    Args:
        model: from `refocus.load`, or any supported module, also inside `DataParallel`,
            `torch.compile` or PEFT. It is read in eval mode and left as it was.
        images: normalized floats `[B, 3, height, width]` on the model's device, as
            `refocus.eval_image(model)` makes them of a picture.
        targets: class index per image `[B]`, one index for all, None for each image's predicted
            class, or any function from logits `[B, K]` to a score per image `[B]` (regression,
            multi-label: `lambda z: z[:, [2, 5]].sum(1)`).

    Returns:
        Explanation: logits `[B, K]`, relevance `[B, height, width]` in [0, 1], patches `[B, h, w]`
            raw, targets `[B]`: the classes explained, or the scores that a function gave, covered:
            the (rows, columns) of pixels that the patches cover.

    Raises:
        InputError: an unsupported model, or images or targets of the wrong type, shape, device or
            range.

    Examples:
        >>> import torch, refocus
        >>> model = refocus.load("vit_tiny_patch16_224", pretrained=False)
        >>> found = refocus.explain(model, torch.zeros(2, 3, 224, 224), targets=3)
        >>> list(found.relevance.shape), list(found.patches.shape), found.targets.tolist()
        ([2, 224, 224], [2, 14, 14], [3, 3])
    """
    check_model(model)
    view(model)
    check_images(model, images)
    classes = head_size(model)
    if classes == 0:
        raise InputError(
            "the model has no classifier head (0 classes), so there is no prediction to explain"
        )
    wanted = (
        targets
        if targets is None or callable(targets)
        else _class_indices(targets, len(images), classes).to(images.device)
    )
    with torch.inference_mode(False), torch.enable_grad(), frozen(model):
        images = images.clone() if images.is_inference() else images
        logits, patches = _in_parts(model, images, wanted)
    explained = (
        logits.argmax(1) if wanted is None else wanted(logits) if callable(wanted) else wanted
    )
    size = images.shape[-2:]
    extent = covered_pixels(model, size)
    return Explanation(logits, normalized(patches, size, extent), patches, explained, extent)


def _in_parts(model: nn.Module, images: Tensor, targets: Target) -> tuple[Tensor, Tensor]:
    """Logits and raw relevance, of few images at a time where their maps are large.

    A function of the logits may look at all images together.
    """
    reader = view(model)
    height, width = reader.grid(*images.shape[-2:])
    at_once = max(1, _PAIRS // max(1, reader.prefix + height * width) ** 2)
    if callable(targets) or len(images) <= at_once:
        logits, patches = relevance_patches(model, images, targets, create_graph=False)
        return logits.detach(), patches.detach()
    parts = [
        _in_parts(model, some, None if targets is None else targets[start : start + at_once])
        for start, some in zip(range(0, len(images), at_once), images.split(at_once), strict=True)
    ]
    logits, patches = (torch.cat(found) for found in zip(*parts, strict=True))
    return logits, patches


def _class_indices(
    targets: Tensor | Sequence[int] | int, count: int, classes: int | None
) -> Tensor:
    try:
        indices = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"targets: {shown(targets)}; must be {count} class indices, one for each image"
        ) from error
    if indices.ndim == 0:
        indices = indices.expand(count)
    if indices.shape != (count,) or not whole(indices):
        raise InputError(
            f"targets: {list(indices.shape)} {indices.dtype}; must be {count} class indices, one "
            "for each image"
        )
    if len(indices) and classes and not (int(indices.min()) >= 0 and int(indices.max()) < classes):
        raise InputError(f"targets: {indices.tolist()}; the model's classes are 0 to {classes - 1}")
    return indices.long()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no weight gradients, which would cost memory; both restored after.

    Raises:
        InputError: a model made in inference mode, whose weights cannot be switched.
    """
    check_gradients(model)
    with evaluating(model):
        wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
        try:
            model.requires_grad_(False)
            yield
        finally:
            for parameter, flag in wanted.items():
                parameter.requires_grad_(flag)
