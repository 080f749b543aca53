"""The methods of the field, one table: objectives of the product, their variants, and baselines."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from evidence import baselines
from evidence.directions import DIRECTIONS, Direction, queries_and_keys
from evidence.teachers import Course
from evidence.work import BATCH, DECAY, DECAYS, Outcome, Work, counting
from refocus import Recipe, load, objective, tune
from refocus.data.swaps import next_donors, swap_backgrounds
from refocus.files import read_json
from refocus.objectives import steps
from refocus.objectives.registry import OBJECTIVES
from refocus.tuning.selection import from_json
from refocus.vit.inputs import fitting

STEP = 3.0  # between two rates of a search
_ALL = 1_000_000  # shots: every image there is
TRIED = "tried"  # name of a direction in the table of objectives, while it trains


@dataclass(frozen=True)
class Method:
    """A row.

    Args:
        about: one line for tables.
        run: trains, from a `Work` to an `Outcome`.
        rate: the search tries a third of it, it, and three and nine times it.
        labels: what it reads beside the images: none, labels, or groups.
        whole: trains on the whole pool, whatever the number of images a class.
        per_image: passes of one image in a step; None: counted on a batch (`passes_per_image`).
        recipe: fields of the product's recipe, for what runs through its loop.
        stepless: its training takes no steps, so that no budget changes it.
        changed: names of `refocus.objectives.steps` that an ablation replaces while it trains.
        direction: a change to `consistency` that is tried.
        ablation: a variant of an objective, which only runs where it is named.
    """

    about: str
    run: Callable[[Work], Outcome]
    rate: float
    labels: str = "labels"
    whole: bool = False
    per_image: int | None = 1
    recipe: Mapping[str, Any] = field(default_factory=dict)
    stepless: bool = False
    changed: Mapping[str, Any] = field(default_factory=dict)
    direction: Direction | None = None
    ablation: bool = False

    def rates(self, first: int = -1, last: int = 2) -> list[float]:
        """`rate` times powers of 3, two digits each."""
        return [float(f"{self.rate * STEP**power:.1e}") for power in range(first, last + 1)]


# --- through the product's own loop ---------------------------------------------------------------


def tuned(work: Work, recipe: Mapping[str, Any], changed: Mapping[str, Any]) -> Outcome:
    """A run of `refocus.tune` as its users run it, the last weights kept."""
    full = _recipe(work, recipe)
    with replaced(changed):
        tune(full, work.folder, progress=False)
    chosen = from_json(read_json(work.folder / "selection.json")).train
    weights = load_file(work.folder / "checkpoints" / "best.safetensors")
    names = [f"{s.image.parent.name}/{s.image.name}" for s in chosen]
    steps = full.epochs * math.ceil(len(chosen) / BATCH)
    trained = sorted({s.image.parent.name for s in chosen})
    batched = full.epochs * len(chosen)
    return Outcome(weights, names, trained, steps, batched, {"epochs": full.epochs})


def directed(work: Work, direction: Direction) -> Outcome:
    """A run of `consistency` with one thing changed, in one round or in more of fewer steps."""
    shutil.rmtree(work.folder, ignore_errors=True)  # what a direction keeps is in no checkpoint
    start = {name: value.clone() for name, value in load(work.model).state_dict().items()}
    found: list[Outcome] = []
    one = replace(work, steps=work.steps // direction.rounds)
    recipe = {"objective": TRIED, "share": 1.0, **direction.recipe}  # a teacher is not averaged
    for turn in range(direction.rounds):
        folder = work.folder / f"round-{turn}"
        model = found[-1].notes["model"] if found else work.model
        course = Course(math.prod(_schedule(one)))
        with trying(direction, course):
            made = tuned(replace(one, model=model, folder=folder), recipe, {})
        weights = direction.kept(start, made.weights, course)
        notes = {"epochs": made.notes["epochs"], "model": folder / "model"}
        found.append(replace(made, weights=weights, notes=notes))
    last = found[-1]
    return replace(
        last,
        steps=sum(f.steps for f in found),
        batched=sum(f.batched for f in found),
        notes={"epochs": sum(f.notes["epochs"] for f in found)},
    )


@contextmanager
def trying(direction: Direction, course: Course) -> Iterator[None]:
    """The product's table of objectives with the direction as a further row."""
    attention = queries_and_keys() if direction.attention else nullcontext()
    with attention, OBJECTIVES.having({TRIED: direction.row(course)}):
        yield


def replaced(changed: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """The product's own step with one thing changed, so that an ablation shares all else."""
    return mock.patch.multiple(steps, **changed) if changed else nullcontext()


def _recipe(work: Work, changes: Mapping[str, Any]) -> Recipe:
    """The recipe whose epochs come nearest to the steps; the rate falls by 0.85^25 in all."""
    source = work.source
    epochs, _ = _schedule(work)
    return Recipe(
        model=str(work.model),
        images=str(source.pool.images),
        masks=str(source.pool.masks),
        val=str(source.dev.images),
        val_masks=str(source.dev.masks),
        classes=_classes(work, _counts(work)),
        class_seed=work.seed if work.half else None,
        shots=work.images or _ALL,
        fewer=True,
        skip_bad=True,
        mask_polarity="keep",
        seed=work.seed,
        epochs=epochs,
        batch_size=BATCH,
        lr=work.rate,
        lr_decay=DECAY ** (DECAYS / epochs),
        lr_decay_every=1,
        select="last",
        val_images=1,  # the field chooses by its own development images, for all methods alike
        check_images=1,
        do_no_harm=False,
        precision=work.precision,  # type: ignore[arg-type]
        device="cpu",
        **changes,
    )


def _counts(work: Work) -> list[int]:
    """Images of each class that have a mask."""
    found = work.source.pool.masked(load(work.model))
    return [len([s for s in found if s.label == label]) for label in {s.label for s in found}]


def _classes(work: Work, counts: list[int]) -> int:
    return max(1, len(counts) // 2) if work.half else len(counts)


def _schedule(work: Work) -> tuple[int, int]:
    """Epochs that come nearest to the steps of a run, and the steps of one."""
    counts = _counts(work)
    shots = work.images or _ALL
    about = sum(min(shots, n) for n in counts) * _classes(work, counts) / len(counts)
    each = math.ceil(about / BATCH)
    return max(1, round(work.steps / each)), each


def passes_per_image(method: Method, model: nn.Module) -> int:
    """How many images go forward for one of the batch in a step: counted on a small batch."""
    if method.per_image is not None:
        return method.per_image
    size = model.pretrained_cfg["input_size"]  # type: ignore[index, operator]
    images = torch.zeros(BATCH, *size)
    masks = torch.zeros(BATCH, 1, *size[1:])
    masks[:, :, size[1] // 4 : -size[1] // 4, size[2] // 4 : -size[2] // 4] = 1
    labels = torch.arange(BATCH) % 2
    tried = trying(method.direction, Course(1)) if method.direction else nullcontext()
    with tried, fitting(images), replaced(method.changed), counting(model) as found:
        name, weights = method.recipe["objective"], method.recipe.get("weights", {})
        compared = OBJECTIVES[name].needs_original or "kl" in weights or "l2_sp" in weights
        original = deepcopy(model) if compared else None  # which is counted as well
        step = objective(name, original=original, **weights)
        step(model, images, masks, labels)
    return found.all // BATCH


def _tuned(
    about: str,
    rate: float,
    changed: Mapping[str, Any] | None = None,
    *,
    ablation: bool = False,
    **recipe: Any,
) -> Method:
    return Method(
        about,
        partial(tuned, recipe=recipe, changed=changed or {}),
        rate,
        labels="none" if recipe["objective"] == "consistency" else "labels",
        per_image=None,
        recipe=recipe,
        changed=changed or {},
        ablation=ablation,
    )


def _every_class(labels: Tensor, s: steps.StepSettings, classes: int) -> Tensor:
    return torch.arange(classes, device=labels.device)


_OBJECTIVES = {name: _tuned(row.about, row.lr, objective=name) for name, row in OBJECTIVES.items()}
_PLAIN = OBJECTIVES["finetune"].lr
_FURTHER = {
    "finetune+kl": _tuned(
        "cross-entropy, answers held near the original's (Li and Hoiem, ECCV 2016)",
        _PLAIN,
        objective="finetune",
        weights={"kl": 1.0},
    ),
    "finetune+l2_sp": _tuned(
        "cross-entropy, weights held near the original's (Li et al., ICML 2018)",
        _PLAIN,
        objective="finetune",
        weights={"l2_sp": 0.1},  # alpha of the paper
    ),
    "finetune+lora": _tuned(
        "cross-entropy through low-rank additions of rank 8 (Hu et al., ICLR 2022)",
        10 * _PLAIN,
        objective="finetune",
        lora=8,
    ),
}
_ABLATIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "energy0": ("without the relevance term", {}, {"weights": {"energy": 0.0}}),
    "swaps0": ("without background swaps", {"_SWAPS": 0}, {}),
    "swaps1": ("with one swap in place of three", {"_SWAPS": 1}, {}),
    "margin0": (
        "without a margin around the donor's object",
        {"swap_backgrounds": partial(swap_backgrounds, margin=0.0)},
        {},
    ),
}


def _any_class(labels: Tensor, turns: int) -> list[Tensor]:
    return next_donors(len(labels), turns)


_VARIANTS = {
    f"{name}-{short}": _tuned(
        f"`{name}` {about}",
        OBJECTIVES[name].lr,
        changed,
        ablation=True,
        objective=name,
        **recipe,
    )
    for name in ("refocus", "consistency")
    for short, (about, changed, recipe) in _ABLATIONS.items()
} | {
    "refocus-any-donor": _tuned(
        "`refocus` with donors of any class, as before other classes were preferred",
        OBJECTIVES["refocus"].lr,
        {"other_class_neighbours": _any_class},
        ablation=True,
        objective="refocus",
    ),
    "refocus-all-classes": _tuned(
        "`refocus` with all classes in the softmax (differs with --classes half)",
        OBJECTIVES["refocus"].lr,
        {"_seen": _every_class},
        ablation=True,
        objective="refocus",
    ),
}


def _tried(name: str, direction: Direction) -> Method:
    own = OBJECTIVES["consistency"]
    return Method(
        f"`consistency`: {direction.about}",
        partial(directed, direction=direction),
        float(f"{own.lr * direction.rate:.1e}"),
        labels="labels" if direction.labels else "none",
        per_image=None,
        recipe={"objective": TRIED, "direction": name, **direction.recipe},
        direction=direction,
        ablation=True,
    )


_DIRECTIONS = {f"consistency-{name}": _tried(name, row) for name, row in DIRECTIONS.items()}


def _untouched(work: Work) -> Outcome:
    return baselines.outcome(load(work.model), [], 0, {})


_FULL = 1e-5  # where the search of methods that move all weights begins
_BASELINES = {
    "base": Method("the base model", _untouched, 0.0, stepless=True),
    "erm": Method("plain training for longer, whole pool", baselines.erm, _FULL, whole=True),
    "cutmix": Method("CutMix, whole pool", baselines.cutmix, _FULL, whole=True),
    "background-randomization": Method(
        "backgrounds exchanged, cross-entropy, whole pool",
        baselines.background_randomization,
        _FULL,
        whole=True,
    ),
    "jtt": Method("just train twice, whole pool", baselines.jtt, _FULL, whole=True),
    "last-layer": Method(
        "class-balanced last layer", baselines.last_layer, 1e-3, whole=True, per_image=0
    ),
    "last-layer-pool": Method(
        "class-balanced last layer, whole pool even where others are held out",
        partial(baselines.last_layer, biased=True),
        1e-3,
        whole=True,
        per_image=0,
    ),
    "linear-probe": Method(
        "class-balanced last layer on the backbone before fine-tuning, whole pool",
        baselines.linear_probe,
        0.01,
        whole=True,
        per_image=0,
        stepless=True,
    ),
    "dfr": Method(
        "last layer on balanced groups",
        baselines.dfr,
        0.1,
        labels="groups",
        whole=True,
        per_image=0,
        stepless=True,
    ),
    "group-dro": Method(
        "worst group's loss, whole pool", baselines.group_dro, _FULL, labels="groups", whole=True
    ),
}


METHODS: dict[str, Method] = {**_BASELINES, **_OBJECTIVES, **_FURTHER, **_VARIANTS, **_DIRECTIONS}
