"""A row of the table as a step that can be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from refocus.data.styles import adain as adain_of
from refocus.errors import InputError
from refocus.objectives.chosen_map import map_of
from refocus.objectives.originals import check_original
from refocus.objectives.refusals import (
    indices,
    of_no_class,
    positive,
    refuse_lesson,
    refuse_unread,
    refuse_unread_classes,
    refuse_weights,
)
from refocus.objectives.registry import OBJECTIVES, Step
from refocus.objectives.regularizers import REGULARIZERS, Pass
from refocus.objectives.steps import Lesson, MakeMap, StepSettings, Terms
from refocus.relevance.answers import logits_of
from refocus.vit.inputs import check_batch, check_flag, check_gradients, check_model, shown


def objective(
    name: str,
    *,
    second_order: bool = False,
    temperature: float = 1.0,
    seen: Sequence[int] | None = None,
    original: nn.Module | None = None,
    target: Callable[[Tensor], Tensor] | Literal["predicted"] | None = None,
    map: str | MakeMap = "gae",
    recompute: bool = False,
    **weights: float,
) -> Step:
    """A training step by name, for a loop of your own.

    The published one is "relevance" (Chefer, Schwartz, Wolf, NeurIPS 2022, Eq. 5), ours is
    "refocus"; `refocus tune --help` lists all. Each call of the step checks its batch.

    Args:
        name: a row of the table of objectives, or of a package that adds one.
        second_order: also differentiate through the attention gradient G (exact derivative of the
            relevance). The published code does not; ours neither unless asked. Costs about one more
            backward pass.
        temperature: divides the logits in the confidence terms (DeiT: 0.65 for B, 0.55 for S in the
            published code).
        seen: indices of the classes tuned on (`tune` passes them), of `refocus`, which compares
            among these only. None: all classes.
        original: the model before tuning, frozen: `consistency` learns its answers, `kl` and
            `l2_sp` measure the distance to it.
        target: a function from logits `[B, K]` to a score per image `[B]`, whose relevance is
            trained in place of the true class's (regression, several labels); where the terms that
            read labels have weight 0, labels may be anything. "predicted": the class that the model
            predicts at this step, so that no label is read (the paper, Section 5). A map of no
            class (rollout, attention) takes neither.
        map: which map is trained: "gae", "rollout", "attention", "gradcam" or "legrad", or a
            function of your own: (model, images, target) -> logits `[B, K]` and a raw map
            `[B, h, w]`, never negative and within the graph.
        recompute: form attention maps anew in the backward pass, one layer at a time, in place of
            keeping all: about the memory of a plain step at any resolution, for a sixth to a third
            more time (docs/performance.md).
        **weights: weights of the objective's terms by name, and of any regularizer (confidence,
            labels, kl, l2_sp, rotation); missing ones keep the table's, or 0.

    Returns:
        Step: (model, images, masks, labels) -> terms by name, each a scalar; "loss" is their
            weighted sum, and its backward pass is yours.

    Raises:
        InputError: unknown objective or term, a switch that the objective does not read, a value of
            the wrong type or range, or no `original` where one is needed.

    Examples:
        >>> import torch, refocus
        >>> model = refocus.load("vit_tiny_patch16_224", pretrained=False)
        >>> images, labels = torch.zeros(2, 3, 224, 224), torch.tensor([0, 1])
        >>> masks = torch.zeros(2, 1, 224, 224)
        >>> masks[:, :, 64:160, 64:160] = 1
        >>> terms = refocus.objective("relevance", recompute=True)(model, images, masks, labels)
        >>> sorted(terms)
        ['background', 'classification', 'foreground', 'loss']
        >>> terms["loss"].backward()
    """
    if original is not None:
        check_model(original, "original")
    predicted = target == "predicted"
    own = None if predicted or not callable(target) else target
    if target is not None and not predicted and own is None:
        raise InputError(f"target: {shown(target)}; must be a function of the logits or predicted")
    second_order = check_flag("second_order", second_order)
    recompute = check_flag("recompute", recompute)
    chosen = StepSettings(
        second_order=second_order,
        temperature=positive("temperature", temperature),
        seen=None if seen is None else indices("seen", seen),
        target=own,
        predicted=predicted,
        map=map_of(map, second_order=second_order),
        recompute=recompute,
        original=original,
    )
    step = step_of(name, chosen, weights)
    refuse_unread_classes(name, OBJECTIVES[name], chosen, weights)
    if original is not None and not _of_original(name, weights):
        able = [key for key, row in OBJECTIVES.items() if row.needs_original]
        terms = [term for term, each in REGULARIZERS.items() if each.needs_original]
        raise InputError(
            f"original: objective {name!r} does not use it; must be left out, or the objective "
            f"{', '.join(able)}, or one of the terms {', '.join(terms)} be given a weight"
        )
    return _checked(step, original, reads_labels=_reads_labels(name, chosen, weights))


def _reads_labels(name: str, settings: StepSettings, weights: Mapping[str, float]) -> bool:
    """Whether the map, or a term with a weight, reads labels as class indices."""
    row = OBJECTIVES[name]
    otherwise = settings.target is not None or settings.predicted or of_no_class(settings.map)
    if row.reads_labels and not otherwise:
        return True
    merged = {**row.weights, **weights}
    return any(merged.get(term) for term in (*row.by_label, "labels"))


def _of_original(name: str, weights: Mapping[str, float]) -> list[str]:
    """What reads the model before tuning: the objective itself, terms with a weight."""
    row = OBJECTIVES[name]
    merged = {**row.weights, **weights}
    terms = [term for term, each in REGULARIZERS.items() if each.needs_original]
    return ["it"] * row.needs_original + [f"the term {t!r}" for t in terms if merged.get(t)]


def lesson(
    teacher: Callable[[Tensor], Tensor],
    token: Literal["class", "second"],
    folder: str | Path | None,
) -> Lesson:
    """What the term `shape` learns; folder: the weights of AdaIN.

    Raises:
        InputError: the folder does not hold them.
    """
    if folder is None:
        return Lesson(teacher, token)
    return Lesson(teacher, token, adain_of(Path(folder).expanduser()))


def step_of(name: str, settings: StepSettings, weights: Mapping[str, float]) -> Step:
    """As `objective`, of a step that trusts its batch: masks `[B, 1, H, W]`, labels int64.

    Raises:
        InputError: unknown objective or term, a switch that the objective does not read, or no
            `original` where one is needed.
    """
    if not isinstance(name, str) or name not in OBJECTIVES:
        raise InputError(f"‹objective› {name}: unknown; choose one of {', '.join(OBJECTIVES)}")
    row = OBJECTIVES[name]
    refuse_weights(name, row, weights)
    refuse_unread(name, row, settings, weights)
    merged = {**row.weights, **weights}
    extra = [term for term in REGULARIZERS if merged.get(term)]
    if settings.original is None and (needing := _of_original(name, weights)):
        raise InputError(
            f"objective {name!r}: {needing[0]} needs `original`, the model before tuning"
        )
    refuse_lesson(extra, settings)
    used = replace(
        settings,
        second_order=settings.second_order or row.exact,
        unread=frozenset(term for term, weight in merged.items() if not weight),
    )

    def step(model: nn.Module, images: Tensor, masks: Tensor, labels: Any) -> Terms:
        terms, logits = row.step(model, images, masks.to(images.dtype), labels, used)
        if extra:
            logits = logits_of(model, images) if logits is None else logits
            given = Pass(model, images, labels, logits, used)
            terms = terms | {term: REGULARIZERS[term].term(given) for term in extra}
        if not terms:  # all have weight 0
            return {"loss": 0 * (logits_of(model, images) if logits is None else logits).sum()}
        return {"loss": total(terms, merged), **terms}

    return step


def total(terms: Terms, weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of the terms.

    The weight `relevance` is a factor on the published mask loss (paper Eq. 3, 5).
    """
    mask_loss = weights.get("relevance", 1.0)
    parts = [
        value * weights[term] * (mask_loss if term in ("background", "foreground") else 1.0)
        for term, value in terms.items()
    ]
    return torch.stack(parts).sum()


def _checked(step: Step, original: nn.Module | None, *, reads_labels: bool) -> Step:
    """The step behind a look at each batch, and at the original that it reads."""

    def checked(model: nn.Module, images: Tensor, masks: Tensor, labels: Any) -> Terms:
        check_model(model)
        check_gradients(model)
        if original is not None:
            check_original(model, original)
        masks, labels = check_batch(model, images, masks, labels, reads_labels=reads_labels)
        return step(model, images, masks, labels)

    return checked
