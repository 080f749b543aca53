"""Changes to `consistency` that are tried on development images, one table (docs/evidence.md).

Each row is the objective with one thing changed: what the student sees, what the teacher says, the
terms, or which weights are trained and kept. A row that helps on several data sets becomes part of
the product; all are tables of docs/results.md.

Axes: images `[B, 3, H, W]`, masks `[B, 1, H, W]`, labels `[B]`, log-probabilities `[B, K]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evidence.teachers import Asked, Course, State, Teach, averaged, corrected, follower, original
from evidence.views import (
    View,
    blended,
    donors_of,
    every_swap,
    gradual,
    moved,
    other_shifts,
    swaps,
)
from refocus.data.swaps import fill_object, widened
from refocus.objectives import losses, steps
from refocus.objectives.registry import OBJECTIVES, Objective
from refocus.objectives.steps import Found, StepSettings
from refocus.relevance.answers import logits_of
from refocus.relevance.attention import attention_maps
from refocus.relevance.gae import relevance_row, score, upsample
from refocus.tuning import loop
from refocus.vit.families import view

_MEAN_KEEPS = 0.95  # of the mean of the weights in a step


# --- the step -------------------------------------------------------------------------------------


def taught(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    labels: Tensor,
    s: StepSettings,
    *,
    course: Course,
    see: View,
    teach: Teach,
) -> Found:
    """`consistency_step` with another view or teacher. Terms: energy, consistency, and the rest.

    originals: the part of `consistency` that the images as they are make.
    empty: how far the answer to a background without its object is from saying nothing.
    """
    assert s.original is not None
    every, where = see(images, masks)
    with torch.no_grad():
        teacher = teach(Asked(s.original, model, every, images, labels, course))
    count = len(every) // len(images)
    logits, terms = steps.with_energy(model, every, where, teacher.argmax(1).repeat(count), s)
    terms["consistency"] = losses.distance_to_teacher(logits, teacher.repeat(count, 1))
    plain = logits[: len(images)]
    if "originals" not in s.unread:
        terms["originals"] = losses.distance_to_teacher(plain, teacher)
    if "empty" not in s.unread:
        terms["empty"] = _knowledge(
            steps.trained_logits(model, fill_object(images, widened(masks)))
        )
    if model.training:
        course.taken += 1
    return terms, plain


def _knowledge(logits: Tensor) -> Tensor:
    """KL(q || uniform), mean over images: log K less the entropy."""
    logs = logits.log_softmax(1)
    uniform = torch.full_like(logs, -math.log(logs.shape[1]))
    return F.kl_div(uniform, logs, log_target=True, reduction="batchmean")


def of_patches(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    labels: Tensor,
    s: StepSettings,
    *,
    course: Course,
) -> Found:
    """Backgrounds are exchanged at the patch embedding, so that there is no seam of pixels.

    A patch that is partly object is mixed by its share of the mask.
    """
    if len(images) == 1:
        return taught(model, images, masks, labels, s, course=course, see=swaps, teach=original)
    embedding: Any = model.patch_embed
    filled = fill_object(images, widened(masks))
    donors = donors_of(images)

    def mixed(module: nn.Module, given: Any, tokens: Tensor) -> Tensor:
        own, ground = tokens.split([len(images), len(tokens) - len(images)])
        share = F.adaptive_avg_pool2d(masks, view(model).grid(*images.shape[-2:]))  # type: ignore[arg-type]
        share = share.flatten(1)[..., None].to(own.dtype)
        found = [share * own + (1 - share) * ground[at] for at in donors]
        return torch.cat([own, *found])

    with torch.no_grad():
        teacher = original(Asked(s.original, model, images, images, labels, course))  # type: ignore[arg-type]
    handle = embedding.register_forward_hook(mixed)
    try:  # what goes in: the images and the filled backgrounds; what comes out: images and swaps
        given = torch.cat([images, filled])
        answers, raw = _map(model, given, teacher.argmax(1).repeat(1 + len(donors)), 0)
    finally:
        handle.remove()
    repeated = masks[:, 0].repeat(1 + len(donors), 1, 1)
    sized = upsample(raw, *steps.extent(model, raw, images))
    return {
        "energy": losses.outside_energy(sized, repeated),
        "consistency": losses.distance_to_teacher(answers, teacher.repeat(1 + len(donors), 1)),
    }, answers[: len(images)]


def late_map(model: nn.Module, images: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
    """The relevance of the last half of the blocks alone."""
    return _map(model, images, targets, len(view(model).blocks) // 2)  # type: ignore[attr-defined]


def _map(model: nn.Module, images: Tensor, targets: Any, first: int) -> tuple[Tensor, Tensor]:
    """Logits, and the raw map of the blocks from `first` on, in the graph; of plain blocks only.

    A hook may make more answers than images go in, which `relevance_patches` does not take.
    """
    reader = view(model)
    with attention_maps(model) as maps:
        logits = logits_of(model, images)
    late = list(maps)[first:]
    gradients = torch.autograd.grad(score(logits, targets), late, retain_graph=True)
    queries = late[-1].shape[-2]
    start = reader.readout(queries).to(images.device, torch.float32).expand(len(logits), queries)
    row = relevance_row(late, gradients, start)
    height, width = reader.grid(*images.shape[-2:])
    return logits, row[:, reader.prefix :].reshape(len(logits), height, width)


# --- which weights --------------------------------------------------------------------------------


def averaging(step: Callable[..., Found], course: Course) -> Callable[..., Found]:
    """The step, which also keeps a running mean of the weights."""

    def kept(model: nn.Module, *given: Any) -> Found:
        if model.training:
            for name, now in model.state_dict().items():
                before = course.mean.setdefault(name, now.detach().clone())
                before.lerp_(now.detach(), 1 - _MEAN_KEEPS)
        return step(model, *given)

    return kept


def by_depth(start: State, end: State) -> State:
    """Of each block the share of the way that its depth is: none of the embeddings, all at last."""
    found = {name: re.match(r"blocks\.(\d+)\.", name) for name in end}
    depth = max(int(m[1]) for m in found.values() if m) + 1
    kept = {}
    for name, now in end.items():
        block = found[name]
        first = name.startswith(("patch_embed", "pos_embed", "cls_token"))
        share = (int(block[1]) + 1) / depth if block else float(not first)
        kept[name] = torch.lerp(start[name], now, share)
    return kept


@contextmanager
def queries_and_keys() -> Iterator[None]:
    """Only they are trained, where a block attends; features stay."""

    def restrict(model: nn.Module, **_: Any) -> None:
        for name, weight in model.named_parameters():
            weight.requires_grad_(".qkv." in name)
            if ".qkv." in name:
                third = len(weight) // 3
                weight.register_hook(partial(_without_last, keep=2 * third))

    with mock.patch.object(loop, "restrict", restrict):
        yield


def _without_last(gradient: Tensor, keep: int) -> Tensor:
    gradient = gradient.clone()
    gradient[keep:] = 0
    return gradient


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Direction:
    """A row.

    Args:
        about: one line for tables, after "`consistency`".
        see: what the student sees; `course` is given where it is asked for.
        teach: what the teacher says.
        weights: of terms, in place of the objective's.
        recipe: fields of the recipe.
        rate: factor on the rate.
        labels: whether it reads labels.
        mean: a running mean of the weights is kept in place of the last.
        depth: weights are kept by depth.
        patches: backgrounds are exchanged at the patch embedding.
        late: the energy is of the last half of the blocks.
        attention: only queries and keys are trained.
        rounds: in the second the tuned model is the teacher.
    """

    about: str
    see: Callable[..., tuple[Tensor, Tensor]] = swaps
    teach: Teach = original
    weights: Mapping[str, float] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    labels: bool = False
    mean: bool = False
    depth: bool = False
    patches: bool = False
    late: bool = False
    attention: bool = False
    rounds: int = 1

    def row(self, course: Course) -> Objective:
        """The objective as a row of the product's table."""
        see = partial(self.see, course=course) if self.see is gradual else self.see
        step: Callable[..., Found] = partial(taught, course=course, see=see, teach=self.teach)
        if self.patches:
            step = partial(of_patches, course=course)
        if self.late:
            step = _with_late_map(step)
        if self.mean:
            step = averaging(step, course)
        own = OBJECTIVES["consistency"]
        weights = {**own.weights, "originals": 0.0, "empty": 0.0, **self.weights}
        return replace(own, step=step, weights=weights)

    def kept(self, start: State, end: State, course: Course) -> State:
        """The weights that a run leaves."""
        if self.mean:
            return {name: course.mean[name] for name in end}
        return by_depth(start, end) if self.depth else end


def _with_late_map(step: Callable[..., Found]) -> Callable[..., Found]:
    def late(
        model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor, s: StepSettings
    ) -> Found:
        return step(model, images, masks, labels, replace(s, map=late_map))

    return late


DIRECTIONS: Mapping[str, Direction] = {
    "cold": Direction("teacher at temperature 0.5", teach=partial(original, temperature=0.5)),
    "warm": Direction("teacher at temperature 2", teach=partial(original, temperature=2.0)),
    "averaged": Direction("teacher averaged over the image and its swaps", teach=averaged),
    "follower10": Direction(
        "teacher is the mean of the student over ten steps", teach=partial(follower, steps=10)
    ),
    "follower": Direction(
        "teacher is the mean of the student over a fifth of the steps", teach=follower
    ),
    "labels": Direction("teacher corrected by labels", teach=corrected, labels=True),
    "rounds2": Direction("two rounds of half the steps, the tuned model teaches", rounds=2),
    "originals1": Direction("originals count five times in place of one", weights={"originals": 1}),
    "empty1": Direction("and no answer to a background without its object", weights={"empty": 1}),
    "energy03": Direction("energy of weight 0.3", weights={"energy": 0.3}),
    "energy3": Direction("energy of weight 3", weights={"energy": 3}),
    "energy10": Direction("energy of weight 10", weights={"energy": 10}),
    "late": Direction("energy of the last half of the blocks alone", late=True),
    "blended": Direction("backgrounds of two donors blended", see=blended),
    "shifts": Direction("a swap, a blurred and a plain background", see=other_shifts),
    "moved": Direction("objects moved and made smaller on their swaps", see=moved),
    "gradual": Direction("backgrounds come in over half of the steps", see=gradual),
    "swaps7": Direction("seven swaps", see=every_swap),
    "patches": Direction("backgrounds exchanged at the patch embedding", patches=True),
    "attention": Direction("only queries and keys trained, rate x 3", attention=True, rate=3),
    "lora": Direction("low-rank additions of rank 8, rate x 10", recipe={"lora": 8}, rate=10),
    "mean": Direction("a running mean of the weights is kept", mean=True),
    "depth": Direction("weights kept by the depth of their block", depth=True),
}
