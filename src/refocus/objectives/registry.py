"""The objectives, one table.

Each is a step: (model, images, masks, labels) -> its terms, "loss" among them.

images: normalized `[B, 3, H, W]`; masks: `[B, 1, H, W]` or `[B, H, W]` in [0, 1], soft allowed;
    labels: `[B]` class indices. Each term is a scalar tensor. A step leaves the backward pass of
    "loss" to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from refocus.errors import InputError
from refocus.objectives.regularizers import REGULARIZERS, Pass
from refocus.objectives.steps import (
    Found,
    MakeMap,
    Settings,
    Terms,
    bce_step,
    consistency_step,
    energy_step,
    finetune_step,
    gradmask_step,
    legrad_step,
    refocus_step,
    relevance_step,
    rrr_step,
    swap_step,
)
from refocus.plugins import Table
from refocus.relevance.attention import logits_of
from refocus.relevance.gae import Target
from refocus.relevance.maps import MAPS, Map
from refocus.vit.inputs import check_batch, check_model, fitting, shown

_TWO, _AXES = 2, 3  # what a map of the caller's returns, and the axes of a map


class Step(Protocol):
    """What `objective` returns."""

    def __call__(self, model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> Terms:
        """The terms of one batch, each a scalar in the graph; "loss" is their weighted sum.

        Args:
            model: the module that is trained, in train mode or not; also inside
                `DistributedDataParallel`.
            images: normalized floats `[B, 3, H, W]` on the model's device.
            masks: `[B, 1, H, W]` or `[B, H, W]` in [0, 1], 1 is the object; also boolean.
            labels: class indices `[B]`. With a `target` of your own, anything that its terms read.

        Raises:
            InputError: an argument of another type, shape, device or range.
        """
        ...


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """A row of the table; a package of yours can add one (docs/extending.md).

    Args:
        step: (model, images, masks `[B, 1, H, W]`, labels, settings) -> the terms, each a scalar,
            and the logits of the images as they are, or None where it has not computed them.
        weights: of its terms by name; one named `relevance` is a factor on `background` and
            `foreground` (paper Eq. 3 and 5).
        about: one line for lists and help texts.
        lr: learning rate where the user names none: the paper's, or what docs/results.md used.
        switches: of `second_order` and `temperature`, those that the caller may set.
        exact: `second_order` is always on.
        share: of the tuned weights that is kept if the user names none
            (`Recipe.share`).
        by_map: trains GAE's relevance map by `relevance_patches`, so that it reads the settings
            `target` and `recompute`.
        needs_original: reads the model before tuning, `Settings.original`.
        without_labels: it can take the predicted class in place of labels where these terms, which
            read labels, have weight 0; None: it cannot.
    """

    step: Callable[[nn.Module, Tensor, Tensor, Tensor, Settings], Found]
    weights: Mapping[str, float]
    about: str
    lr: float
    switches: tuple[str, ...] = ()
    exact: bool = False
    share: float = 1.0
    by_map: bool = False
    needs_original: bool = False
    without_labels: tuple[str, ...] | None = None


_PUBLISHED = {
    "background": 2.0,
    "foreground": 0.3,
    "relevance": 0.8,
    "classification": 0.2,
}  # paper Table 5, all models alike
_OWN = {
    "relevance": Objective(
        relevance_step,
        _PUBLISHED,
        "published: squared error of the relevance against the mask, and confidence",
        lr=2e-6,
        switches=("second_order", "temperature"),
        by_map=True,
        without_labels=(),
    ),
    "relevance-exact": Objective(
        relevance_step,
        _PUBLISHED,
        "the same, with the derivative through the attention gradient",
        lr=2e-6,
        switches=("temperature",),
        exact=True,
        by_map=True,
        without_labels=(),
    ),
    "legrad": Objective(
        legrad_step,
        _PUBLISHED,
        "the same on LeGrad's map",
        lr=2e-6,
        switches=("temperature",),
        without_labels=(),
    ),
    "finetune": Objective(
        finetune_step,
        {"classification": 1.0},
        "cross-entropy with labels, no masks (baseline)",
        lr=1e-5,
    ),
    "gradmask": Objective(
        gradmask_step,
        {"background": 1.0, "classification": 1.0},
        "GradMask: input gradient of the true class outside the mask, and cross-entropy",
        lr=1e-5,
        exact=True,
    ),
    "gradmask-as-published": Objective(
        gradmask_step,
        {"background": 50.0, "classification": 3e-9},  # paper Table 7, ViT-B
        "what the paper's GradMask trained: its mask term is a constant, and cross-entropy",
        lr=2e-4,
    ),
    "rrr": Objective(
        rrr_step,
        {"background": 1e-4, "classification": 1.0},
        "Right for the Right Reasons: input gradient of all classes outside the mask, and "
        "cross-entropy",
        lr=1e-5,
        exact=True,
    ),
    "rrr-as-published": Objective(
        rrr_step,
        {"background": 1e-10, "classification": 2e-6},  # paper Table 6, ViT-B
        "what the paper's RRR trained: its mask term is a constant, and cross-entropy",
        lr=2e-6,
    ),
    "energy": Objective(
        energy_step,
        {"energy": 1.0, "classification": 1.0},
        "share of relevance outside the mask, and cross-entropy",
        lr=5e-6,
        switches=("second_order",),
        by_map=True,
        without_labels=("classification",),
    ),
    "bce": Objective(
        bce_step,
        {"bce": 1.0, "classification": 1.0},
        "binary cross-entropy of the relevance against the mask, and cross-entropy",
        lr=5e-6,
        switches=("second_order",),
        by_map=True,
        without_labels=("classification",),
    ),
    "swap": Objective(
        swap_step,
        {"classification": 1.0},
        "cross-entropy on background swaps made with the masks",
        lr=1e-5,
    ),
    "refocus": Objective(
        refocus_step,
        {"energy": 1.0, "classification": 1.0},
        "ours: energy, and cross-entropy among the classes tuned on, on images and their swaps; "
        "weights averaged 50/50 with the original are kept",
        lr=1e-5,
        share=0.5,  # what WiSE-FT recommends where nothing is known of the shift
        switches=("second_order",),
        by_map=True,
    ),
    "consistency": Objective(
        consistency_step,
        {"energy": 1.0, "consistency": 1.0},
        "ours, without labels: the original model's answers to the images, held on them and on "
        "their background swaps, and energy",
        lr=1e-5,
        switches=("second_order",),
        by_map=True,
        needs_original=True,
    ),
}
OBJECTIVES = Table("refocus.objectives", _OWN, Objective)


# --- a row as a step ----------------------------------------------------------------------------


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
        seen: indices of the classes tuned on (`tune` passes them); `refocus` compares among these
            only. None: all classes.
        original: the model before tuning, frozen: `consistency` learns its answers, `kl` and
            `l2_sp` measure the distance to it.
        target: a function from logits `[B, K]` to a score per image `[B]`, whose relevance is
            trained in place of the true class's (regression, several labels); set the weight of
            terms that read labels to 0 then. "predicted": the class that the model predicts at
            this step, so that no label is read (the paper, Section 5).
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
        raise InputError(f"target: {shown(target)}; legal is a function of the logits or predicted")
    chosen = Settings(
        second_order=second_order,
        temperature=_positive("temperature", temperature),
        seen=None if seen is None else _indices("seen", seen),
        target=own,
        predicted=predicted,
        map=map_of(map, second_order=second_order),
        recompute=recompute,
        original=original,
    )
    return _checked(step_of(name, chosen, weights), reads_labels=own is None)


def map_of(name: str | MakeMap, *, second_order: bool = False) -> MakeMap | None:
    """A map by name, or one of the caller's, as steps take it; None for GAE's.

    Raises:
        InputError: unknown, or a derivative that it does not have is asked for.
    """
    if name == "gae":
        return None
    if callable(name):
        if second_order:
            raise InputError("‹second_order›: a map of your own does not read it")
        return checked_map(name)
    if name not in MAPS:
        raise InputError(f"‹map› {name}: unknown; legal are gae, {', '.join(MAPS)}")
    row = MAPS[name]
    if second_order and not row.second_order:
        raise InputError(f"‹second_order›: the map {name!r} does not read it")
    return _Named(row, second_order)


@dataclass(frozen=True)
class _Named:
    """A row of the maps as a step takes it."""

    row: Map
    second_order: bool

    def __call__(self, model: nn.Module, images: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        return self.row.make(model, images, target, self.second_order)


def checked_map(make: MakeMap) -> MakeMap:
    """A map of the caller's behind a look at what it gives.

    Raises:
        InputError: another shape, or a map outside of the graph, which would train nothing.
    """

    def checked(model: nn.Module, images: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        made = make(model, images, target)
        logits, raw = made if isinstance(made, tuple) and len(made) == _TWO else (None, None)
        if not (isinstance(logits, Tensor) and isinstance(raw, Tensor) and raw.ndim == _AXES):
            raise InputError("map: must return logits [B, K] and a map [B, h, w]")
        if len(raw) != len(images):
            raise InputError(f"map: returned {len(raw)} maps for {len(images)} images")
        if torch.is_grad_enabled() and not raw.requires_grad:
            raise InputError("map: the returned map is outside of the graph, so it trains nothing")
        return logits, raw

    return checked


def step_of(name: str, settings: Settings, weights: Mapping[str, float]) -> Step:
    """As `objective`, of a step that trusts its batch: masks `[B, 1, H, W]`, labels int64.

    Raises:
        InputError: unknown objective or term, a switch that the objective does not read, or no
            `original` where one is needed.
    """
    if name not in OBJECTIVES:
        raise InputError(f"‹objective› {name}: unknown; legal are {', '.join(OBJECTIVES)}")
    row = OBJECTIVES[name]
    _refuse_weights(name, row, weights)
    _refuse_unread(name, row, settings, weights)
    merged = {**row.weights, **weights}
    extra = [term for term in REGULARIZERS if merged.get(term)]
    if settings.original is None:
        needing = [f"the term {term!r}" for term in extra if REGULARIZERS[term].needs_original]
        if row.needs_original or needing:
            what = "it" if row.needs_original else needing[0]
            raise InputError(
                f"objective {name!r}: {what} needs `original`, the model before tuning"
            )
    used = replace(
        settings,
        second_order=settings.second_order or row.exact,
        unread=frozenset(term for term, weight in merged.items() if not weight),
    )

    def step(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> Terms:
        terms, logits = row.step(model, images, masks.to(images.dtype), labels, used)
        if extra:
            logits = logits_of(model, images) if logits is None else logits
            given = Pass(model, images, labels, logits, used)
            terms = terms | {term: REGULARIZERS[term].term(given) for term in extra}
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


def _checked(step: Step, *, reads_labels: bool) -> Step:
    """The step behind a look at each batch."""

    def checked(model: nn.Module, images: Tensor, masks: Tensor, labels: Tensor) -> Terms:
        check_model(model)
        masks, labels = check_batch(model, images, masks, labels, reads_labels=reads_labels)
        with fitting(images):
            return step(model, images, masks, labels)

    return checked


# --- what is refused ----------------------------------------------------------------------------


def _refuse_weights(name: str, row: Objective, weights: Mapping[str, float]) -> None:
    for term, weight in weights.items():
        if term not in row.weights and term not in REGULARIZERS:
            raise InputError(
                f"‹weights› {term}: objective {name!r} has no such term; its terms are "
                f"{', '.join(row.weights)}, and any objective takes {', '.join(REGULARIZERS)}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise InputError(f"‹weights› {term}: {shown(weight)}; legal is a number")
        if not math.isfinite(weight):
            raise InputError(f"‹weights› {term}={weight}: must be a finite number")


def _refuse_unread(
    name: str, row: Objective, settings: Settings, weights: Mapping[str, float]
) -> None:
    """A setting that changes nothing would be a wrong belief."""
    by_map = {
        "target": settings.target is not None,
        "map": settings.map is not None,
        "recompute": settings.recompute,
    }
    for setting, given in by_map.items():
        if given and not row.by_map:
            raise InputError(
                f"{setting}: objective {name!r} does not read it; those with a map of GAE do"
            )
    _refuse_labels(name, row, settings, weights)
    if settings.map is not None and (settings.recompute or row.exact):
        what = "recompute" if settings.recompute else f"objective {name!r}"
        raise InputError(f"{what}: is about GAE's map; another ‹map› has neither")
    if settings.recompute and (settings.second_order or row.exact):
        raise InputError(
            "recompute: keeps no graph of the attention gradient, which the exact derivative of "
            f"{name!r} needs"
        )
    if settings.second_order and "second_order" not in row.switches:
        raise InputError(f"‹second_order›: objective {name!r} does not read it")
    read = "temperature" in row.switches or weights.get("confidence")
    if settings.temperature != 1.0 and not read:
        raise InputError(f"‹temperature›: objective {name!r} does not read it")


def _refuse_labels(
    name: str, row: Objective, settings: Settings, weights: Mapping[str, float]
) -> None:
    """Where the predicted class is asked for, no term may read labels."""
    if not settings.predicted:
        return
    shown = "‹target=predicted›"
    if row.without_labels is None:
        able = [key for key, each in OBJECTIVES.items() if each.without_labels is not None]
        raise InputError(f"{shown}: objective {name!r} does not read it; legal: {', '.join(able)}")
    if isinstance(settings.map, _Named) and not settings.map.row.by_class:
        raise InputError(f"{shown}: this ‹map› is of no class and does not read it")
    merged = {**row.weights, **weights}
    for term in (*row.without_labels, "labels"):
        if merged.get(term):
            raise InputError(
                f"{shown}: the term {term!r} of objective {name!r} reads labels; set its weight to "
                "0 (‹weights›), and that of confidence to 0.2 for the paper's in its place"
            )


def _positive(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{name}: {shown(value)}; legal is a positive number")
    return float(value)


def _indices(name: str, values: object) -> tuple[int, ...]:
    listed = values.tolist() if isinstance(values, Tensor) else values
    if isinstance(listed, Sequence | set) and not isinstance(listed, str):
        found = tuple(listed)
        if found and all(type(value) is int and value >= 0 for value in found):
            return found
    raise InputError(f"{name}: {shown(values)}; legal are class indices, at least one")
