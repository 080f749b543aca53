"""The course of a run from its selection to its results: rate, epochs, choice of weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    set_seed,
)
from torch import nn

from refocus import fingerprints, references
from refocus.errors import InputError
from refocus.files import read_json, write_json
from refocus.objectives.by_name import lesson, step_of
from refocus.objectives.chosen_map import map_of
from refocus.objectives.registry import OBJECTIVES, Step
from refocus.objectives.steps import Lesson, StepSettings
from refocus.records import from_json as from_record
from refocus.relevance.answers import has_second_token
from refocus.tuning import rates
from refocus.tuning.conclude import conclude
from refocus.tuning.epochs import Progressed, run_epochs
from refocus.tuning.loop import Training
from refocus.tuning.recipe import Recipe
from refocus.tuning.results import TuneResults
from refocus.tuning.selection import Selection
from refocus.tuning.tracking import tracking
from refocus.tuning.trainable import restrict
from refocus.vit.classes import class_count
from refocus.vit.loading import load, pick_device, preprocessing, reading_digest, weights_digest
from refocus.vit.precision import check_precision
from refocus.vit.teachers import load_teacher

_RATES = "rates.json"


@dataclass(frozen=True)
class Watch:
    """Who is told how a run gets on: a function, the reader of stderr, and a tracker by name."""

    on_epoch: Progressed | None
    shown: bool
    track: str | None


@dataclass(frozen=True)
class _Rate:
    """Of rates.json, what a resumed run needs."""

    lr: float


def recipes_step(
    recipe: Recipe, device: torch.device | None = None, seen: list[int] | None = None
) -> Step:
    """The recipe's objective.

    Without a device it is only checked and gets no weights to compare with.
    """
    original = None
    row = OBJECTIVES.get(recipe.objective)  # an unknown one is refused by `step_of`
    if (row and row.needs_original) or recipe.weights.get("kl") or recipe.weights.get("l2_sp"):
        original = load(
            recipe.model, pretrained=device is not None, device=device or "cpu"
        ).requires_grad_(False)
    settings = StepSettings(
        lesson=_lesson(recipe, device),
        second_order=recipe.second_order,
        temperature=recipe.temperature,
        seen=None if seen is None else tuple(seen),
        original=original,
        recompute=recipe.recompute,
        published_complement=recipe.protocol == "paper",
        predicted=recipe.target == "predicted",
        map=map_of(recipe.map, second_order=recipe.second_order),
    )
    return step_of(recipe.objective, settings, recipe.weights)


def refuse_unusable(recipe: Recipe) -> None:
    """Stop, before anything is written, at an objective or a restriction that cannot be.

    One step is tried: whether an objective can train a model is known best by doing so.

    Raises:
        InputError: says which; also where what is left to train does not change the map.
    """
    step, model = recipes_step(recipe), load(recipe.model, pretrained=False)
    restrict(model, last_blocks=recipe.last_blocks, lora=recipe.lora)
    images = torch.zeros(2, *preprocessing(model)["input_size"])
    masks = torch.zeros(2, 1, *images.shape[-2:])
    masks[..., : masks.shape[-1] // 2] = 1
    step(model.train(), images, masks, torch.arange(2) % class_count(model))


def _lesson(recipe: Recipe, device: torch.device | None) -> Lesson | None:
    """What the recipe's teacher teaches.

    Raises:
        InputError: a teacher of other classes, or a second token that the model does not have.
    """
    if recipe.teacher is None:
        return None
    student = load(recipe.model, pretrained=False)
    if recipe.teacher_token == "second" and not has_second_token(student):
        raise InputError(
            "‹teacher_token› second: the model has no second token (distilled DeiTs have one); "
            "must be class"
        )
    teacher = load_teacher(
        str(recipe.teacher), student, pretrained=device is not None, device=device or "cpu"
    )
    return lesson(teacher, recipe.teacher_token, recipe.adain)


def lone(recipe: Recipe, images: int, processes: int) -> str:
    """What to say where a step sees one image and the objective takes something of others; else "".

    images: that are trained on.
    """
    if min(recipe.batch_size, images) >= 2 * processes:
        return ""
    taken = ["backgrounds"] * OBJECTIVES[recipe.objective].needs_others
    taken += ["styles"] * bool(recipe.weights.get("shape"))
    if not taken:
        return ""
    return (
        f"a step sees one image of {images}, ‹batch_size› {recipe.batch_size} over {processes} "
        f"process{'es' * (processes > 1)}: there is no other image whose "
        f"{' and '.join(taken)} it could take; give at least {2 * processes}"
    )


def origins(recipe: Recipe, model: nn.Module) -> dict[str, str]:
    """What a run starts from beside its files, part -> fingerprint; model: as the recipe names it.

    The teacher is loaded: what a hub or a cache gives for its name says no file of the run's.
    """
    found = {
        fingerprints.WEIGHTS: weights_digest(model),
        fingerprints.READING: reading_digest(model),
    }
    if recipe.teacher is not None:
        found[fingerprints.TEACHER] = load_teacher(str(recipe.teacher), model).digest
    return found


def lesson_files(recipe: Recipe) -> list[Path]:
    """Weights on this disk that the term `shape` learns from: the teacher's and AdaIN's."""
    teacher = str(recipe.teacher or "")
    places = [Path(recipe.adain).expanduser()] if recipe.adain else []
    if teacher.startswith("torchvision:"):
        places += [Path(file).expanduser() for file in (teacher.partition("@")[2],) if file]
    elif teacher:
        places.append(references.folder_of(teacher))
    inside = [file for place in places if place.is_dir() for file in place.iterdir()]
    return [file for file in (*places, *inside) if file.is_file() and file.name[0] != "."]


def _rate(
    recipe: Recipe,
    selection: Selection,
    step: Step,
    folder: Path,
    accelerator: Accelerator,
    progress: bool,
) -> float:
    """The recipe's learning rate, the objective's own, or with `auto` what `rates.search` finds.

    That is kept in the run folder so that a resumed run does not search again.
    """
    if recipe.lr is None:
        return OBJECTIVES[recipe.objective].lr
    if recipe.lr != "auto":
        return float(recipe.lr)
    kept = folder / _RATES
    if not kept.exists():
        found = rates.search(recipe, selection, step, accelerator, progress=progress)
        if accelerator.is_main_process:
            write_json(kept, found)
        accelerator.wait_for_everyone()
    return from_record(read_json(kept), _Rate, kept).lr


def accelerator_for(recipe: Recipe) -> Accelerator:
    """Device and precision as the recipe has them.

    Raises:
        InputError: this machine has no such device, or it does not compute in that precision.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "‹device› cuda: this machine has no usable CUDA device; choose one of auto, cpu"
        )
    if recipe.device == "mps" and not torch.backends.mps.is_available():
        raise InputError(
            "‹device› mps: this machine has no usable MPS device; choose one of auto, cpu"
        )
    device = pick_device(recipe.device)
    check_precision(recipe.precision, device)
    # else a second run in this process could not choose another precision
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if recipe.precision == "bf16" else "no",
        kwargs_handlers=[
            # mask tokens, heads that a classifier passes over
            DistributedDataParallelKwargs(find_unused_parameters=True),
            # the others wait while the first process validates and checks for harm
            InitProcessGroupKwargs(timeout=timedelta(days=1)),
        ],
    )


def finished(
    recipe: Recipe,
    selection: Selection,
    model: nn.Module,
    folder: Path,
    accelerator: Accelerator,
    watch: Watch,
    *,
    new: bool = False,
) -> TuneResults:
    """What is left of a run, in the tracker as well: its epochs, then the choice of the weights.

    new: the folder was just made.
    """
    with tracking(watch.track, folder, recipe, selection, new=new) as tracked:
        step = recipes_step(recipe, accelerator.device, sorted({s.label for s in selection.train}))
        rate = _rate(recipe, selection, step, folder, accelerator, watch.shown)
        recipe = replace(recipe, lr=rate, lr_range=Recipe.lr_range)
        set_seed(recipe.seed)
        training = Training(recipe, rate, model, selection.train, accelerator)
        on_epoch = tracked.then(watch.on_epoch)
        best = run_epochs(
            training, step, selection.select, folder, on_epoch=on_epoch, progress=watch.shown
        )
        results: TuneResults | None = None
        if accelerator.is_main_process:
            results = conclude(recipe, selection, folder, best, accelerator, watch.shown)
        (results,) = broadcast_object_list([results])
        accelerator.free_memory()
        assert results is not None
        tracked.results(results)
        return results
