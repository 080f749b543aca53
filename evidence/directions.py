"""Changes to `consistency` that are tried on development images, one table (docs/evidence.md).

Each row is the objective with one thing changed: what the student sees, what the teacher says, the
terms, or which weights are trained and kept. A row that helps on several data sets becomes part of
the product; all are tables of docs/results.md.

Axes: images `[B, 3, H, W]`, masks `[B, 1, H, W]`, labels `[B]`, log-probabilities `[B, K]`.
"""

from __future__ import annotations

import copy
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

from refocus.data.swaps import fill_object, next_donors, swap_backgrounds, widened
from refocus.objectives import losses, steps
from refocus.objectives.registry import OBJECTIVES, Objective
from refocus.objectives.steps import Found, StepSettings
from refocus.relevance.answers import logits_of
from refocus.relevance.attention import attention_maps
from refocus.relevance.gae import relevance_row, score, upsample
from refocus.tuning import loop
from refocus.vit.families import view

State = dict[str, Tensor]
# images and masks of a batch -> those that the student sees, the batch as it is first
View = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_MEAN_KEEPS = 0.95  # of the mean of the weights in a step
_SMALLEST = 0.6  # size of an object that is moved, of its own
_FURTHEST = 0.4  # shift of its centre, of half the image


@dataclass
class Course:
    """What a run of a direction keeps from one step to the next. `total`: steps of the run."""

    total: int
    taken: int = 0
    teacher: nn.Module | None = None
    mean: State = field(default_factory=dict)


# --- what the student sees ------------------------------------------------------------------------


def swaps(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The product's: the images and three background swaps of each."""
    return _seen(images, masks, [_swapped(images, masks, at) for at in _donors(images)])


def blended(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Each swap has the mean of two donors' backgrounds."""
    donors = _donors(images)
    pairs = zip(donors, donors[1:] + donors[:1], strict=True)
    views = [(_swapped(images, masks, a) + _swapped(images, masks, b)) / 2 for a, b in pairs]
    return _seen(images, masks, views)


def other_shifts(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """A swap, the own background blurred, and a plain one of its mean colour."""
    if len(images) == 1:
        return images, masks
    own = fill_object(images, widened(masks))
    blurred = F.interpolate(F.avg_pool2d(own, 16, ceil_mode=True), own.shape[-2:], mode="bilinear")
    plain = own.mean((2, 3), keepdim=True).expand_as(own)
    views = [_swapped(images, masks, _donors(images)[0])]
    views += [masks * images + (1 - masks) * ground for ground in (blurred, plain)]
    return _seen(images, masks, views)


def moved(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Swaps in which the object is 0.6 to 1 of its size and elsewhere."""
    views, where = [images], [masks]
    for at in _donors(images):
        grid = _affine(images)
        mask = F.grid_sample(masks, grid, align_corners=False)
        there = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        views.append(swap_backgrounds(there, mask, images[at], masks[at]))
        where.append(mask)
    return torch.cat(views), torch.cat(where)


def _affine(images: Tensor) -> Tensor:
    count = len(images)
    size = _SMALLEST + (1 - _SMALLEST) * torch.rand(count)
    shift = _FURTHEST * (2 * torch.rand(count, 2) - 1)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / size
    matrix[:, :, 2] = shift
    return F.affine_grid(matrix.to(images), list(images.shape), align_corners=False)


def gradual(images: Tensor, masks: Tensor, *, course: Course) -> tuple[Tensor, Tensor]:
    """Swaps whose backgrounds come in over the first half of the steps."""
    opacity = min(1.0, 2 * (course.taken + 1) / course.total)
    views = [
        (1 - opacity) * images + opacity * _swapped(images, masks, at) for at in _donors(images)
    ]
    return _seen(images, masks, views)


def every_swap(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Seven swaps in place of three: each image of a batch lends its background to all others."""
    donors = next_donors(len(images), min(7, len(images) - 1))
    return _seen(images, masks, [_swapped(images, masks, at) for at in donors])


def _donors(images: Tensor) -> list[Tensor]:
    return next_donors(len(images), steps.turns(images))


def _swapped(images: Tensor, masks: Tensor, at: Tensor) -> Tensor:
    return swap_backgrounds(images, masks, images[at], masks[at])


def _seen(images: Tensor, masks: Tensor, views: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat([images, *views]), masks.repeat(1 + len(views), 1, 1, 1)


# --- what the teacher says ------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What a teacher may look at. `every`: what the student sees."""

    original: nn.Module
    student: nn.Module
    every: Tensor
    images: Tensor
    labels: Tensor
    course: Course


def original(asked: Asked, temperature: float = 1.0) -> Tensor:
    """The product's: the original's answer to the untouched image."""
    return (logits_of(asked.original, asked.images) / temperature).log_softmax(1)


def corrected(asked: Asked) -> Tensor:
    """The same; where its class is not the label, the two exchange their probabilities."""
    found = original(asked)
    rows, said = torch.arange(len(found)), found.argmax(1)
    exchanged = found.clone()
    exchanged[rows, said] = found[rows, asked.labels]
    exchanged[rows, asked.labels] = found[rows, said]
    return exchanged


def averaged(asked: Asked) -> Tensor:
    """The mean of the original's probabilities over the image and its swaps."""
    answers = logits_of(asked.original, asked.every).softmax(1)
    return answers.view(-1, len(asked.images), answers.shape[1]).mean(0).log()


def follower(asked: Asked, steps: float | None = None) -> Tensor:
    """A running mean of the student's weights answers (Tarvainen and Valpola, NeurIPS 2017).

    steps: of which it is the mean. Default: a fifth of the run's.
    """
    course = asked.course
    if course.teacher is None:
        course.teacher = copy.deepcopy(asked.original)
    if asked.student.training:
        follow(course.teacher, asked.student, steps or max(1.0, 0.2 * course.total))
    return logits_of(course.teacher, asked.images).log_softmax(1)


def follow(teacher: nn.Module, student: nn.Module, steps: float) -> None:
    """Take a step towards the student; the start of each step of training."""
    for kept, now in zip(teacher.parameters(), student.parameters(), strict=True):
        kept.lerp_(now.detach(), 1 / steps)


Teach = Callable[[Asked], Tensor]


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
    donors = _donors(images)

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
        answers, raw = _map_of_mixed(model, given, teacher.argmax(1).repeat(1 + len(donors)))
    finally:
        handle.remove()
    repeated = masks[:, 0].repeat(1 + len(donors), 1, 1)
    sized = upsample(raw, *steps.extent(model, raw, images))
    return {
        "energy": losses.outside_energy(sized, repeated),
        "consistency": losses.distance_to_teacher(answers, teacher.repeat(1 + len(donors), 1)),
    }, answers[: len(images)]


def _map_of_mixed(model: nn.Module, given: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """As `relevance_patches`, of more images than go in. Only for models of plain blocks."""
    return _map(model, given, targets, 0)


def late_map(model: nn.Module, images: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
    """The relevance of the last half of the blocks alone."""
    return _map(model, images, targets, len(view(model).blocks) // 2)  # type: ignore[attr-defined]


def _map(model: nn.Module, images: Tensor, targets: Any, first: int) -> tuple[Tensor, Tensor]:
    """Logits, and the raw map of the blocks from `first` on, in the graph."""
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
