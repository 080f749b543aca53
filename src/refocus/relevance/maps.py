"""Maps other than GAE's that an objective can train, one function each.

Each gives logits `[B, K]` and a raw map `[B, h, w]`, never negative and within the graph. Axes: B
images, H heads, N tokens, D features, h x w patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refocus.relevance.answers import logits_of
from refocus.relevance.attention import attention_maps, differentiable
from refocus.relevance.forms import on_grid, refuse_other_axes
from refocus.relevance.legrad import legrad_patches
from refocus.relevance.scores import Target, refuse_untrained, score, slopes
from refocus.relevance.switches import mine
from refocus.vit.families import view
from refocus.vit.views import View, unsupported

Made = tuple[Tensor, Tensor]
Recorded = tuple[Tensor, Any, list[Tensor], Tensor, bool]


@dataclass(frozen=True)
class Map:
    """A row of the table.

    make: (model, images, targets, second_order) -> logits and map. by_class: it is of a class, so
    that `target` is read. second_order: whether the caller may ask for the derivative through the
    gradient; a map without one, or that has no other, does not use it.
    """

    make: Callable[[nn.Module, Tensor, Target, bool], Made]
    about: str
    by_class: bool = True
    second_order: bool = False


def attention_only(model: nn.Module, images: Tensor, _targets: Target, _second: bool) -> Made:
    """The last attention of the tokens that the classifier reads, mean over heads.

    As DINO shows it (Caron et al., ICCV 2021); of a pooling by attention, its own.
    """
    logits, reader, layers, row, pooled = _recorded(model, images)
    return logits, on_grid(model, reader, row if pooled else _read(row, layers[-1]), images)


def rollout(model: nn.Module, images: Tensor, _targets: Target, _second: bool) -> Made:
    """Attention rollout (Abnar and Zuidema, ACL 2020): the product of (A + I) / 2 over the layers.

    A is the mean over heads; the row of the tokens that the classifier reads is carried back.
    """
    logits, reader, layers, row, _ = _recorded(model, images)
    for attention in reversed(layers):
        row = (row + _read(row, attention)) / 2
    return logits, on_grid(model, reader, row, images)


def gradcam(model: nn.Module, images: Tensor, targets: Target, second_order: bool) -> Made:
    """Grad-CAM (Selvaraju et al., ICCV 2017, Eq. 1 and 2) on the tokens T entering the last block.

    alpha_k is the mean over the patches of d score / d T_k, a constant unless `second_order`; the
    map is the positive part of sum_k alpha_k T_k.
    """
    reader = view(model)
    if not isinstance(reader, View):
        raise unsupported(model, "Grad-CAM needs to know its blocks")
    with attention_maps(model) as recorded, _entering(reader.blocks[-1]) as entered:
        logits = logits_of(model, images)
    (tokens,) = entered
    (gradient,) = slopes(score(logits, targets), [tokens], within_graph=second_order)
    assert gradient is not None  # the last block reads them
    refuse_untrained(model, [tokens], [tokens, *recorded], by_gradient=second_order)
    alpha = gradient[:, reader.prefix :].mean(1)
    precision = torch.promote_types(tokens.dtype, torch.float32)
    cam = torch.einsum("bd,bnd->bn", alpha.to(precision), tokens.to(precision))
    return logits, on_grid(model, reader, cam.clamp(min=0), images)


def legrad(model: nn.Module, images: Tensor, targets: Target, _second: bool) -> Made:
    """LeGrad (Bousselham et al., ICCV 2025), which consists of gradients alone."""
    return legrad_patches(model, images, targets, create_graph=True)


MAPS = {
    "attention": Map(
        attention_only, "the last layer's attention, as DINO shows it", by_class=False
    ),
    "rollout": Map(rollout, "attention rollout over all layers", by_class=False),
    "gradcam": Map(gradcam, "Grad-CAM on the tokens that enter the last block", second_order=True),
    "legrad": Map(legrad, "LeGrad: attention gradients of every block's own answer"),
}


def _recorded(model: nn.Module, images: Tensor) -> Recorded:
    """Logits, how the model is read, each layer's attention `[B, N, N]` and the row to carry back.

    Attention is the mean over heads and over layers side by side. The row `[B, N]` is how the
    classifier reads the last tokens, a pooling by attention included; the last value says whether
    there is one.
    """
    reader = view(model)
    with attention_maps(model) as recorded:
        logits = logits_of(model, images)
    if not recorded:
        raise unsupported(model, "none of its attention maps was recorded")
    refuse_other_axes(model, recorded, images)
    refuse_untrained(model, recorded, recorded)
    if _unread(logits, recorded[-1]):
        recorded.pop()
    maps = [attention.mean(1) for attention in recorded]
    row = reader.readout(maps[-1].shape[1]).to(images.device, maps[-1].dtype)
    row = row.expand(len(images), -1)
    pooled = maps[-1].shape[1] != maps[-1].shape[2]
    if pooled:  # by attention to the last tokens of those before
        read = _read(row, maps.pop())
        row = F.pad(read, (maps[-1].shape[1] - read.shape[1], 0))
    branches = getattr(reader, "branches", 1)
    starts = range(0, len(maps), branches)
    layers = [torch.stack(maps[i : i + branches]).mean(0) for i in starts]
    return logits, reader, layers, row, pooled


def _unread(logits: Tensor, last: Tensor) -> bool:
    """Whether a pooling by attention is there but its answer does not reach the classifier.

    transformers' SigLIP with a trained head has one and takes the mean of the patches.
    """
    if last.shape[-2] == last.shape[-1] or not logits.requires_grad:
        return False
    found = torch.autograd.grad(logits.sum(), last, retain_graph=True, allow_unused=True)
    return found[0] is None


def _read(row: Tensor, attention: Tensor) -> Tensor:
    """`[B, Q]` through `[B, Q, N]`: `[B, N]`."""
    return torch.einsum("bq,bqn->bn", row, attention)


@contextmanager
def _entering(block: nn.Module) -> Iterator[list[Tensor]]:
    """Within the `with`, a pass fills the list with the tokens that enter a block, `[B, N, D]`."""
    entered: list[Tensor] = []

    def note(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered.append(differentiable(args[0] if args else named["hidden_states"]))

    handle = block.register_forward_pre_hook(mine(note), with_kwargs=True)
    try:
        yield entered
    finally:
        handle.remove()
