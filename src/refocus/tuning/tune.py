"""`tune`: few shots, one forward and two backward passes a step; it must do no harm.

A run can be interrupted and resumed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from refocus import fingerprints, locks, outputs, references
from refocus.data.folders import name_by_folders
from refocus.data.shifts import grounds
from refocus.data.sources.opened import Opened, opened, opened_pair
from refocus.errors import InputError, Message
from refocus.files import read_json, write_json
from refocus.runs import MODEL, RECIPE, SELECTION
from refocus.tuning.course import (
    Watch,
    accelerator_for,
    finished,
    lesson_files,
    lone,
    origins,
    refuse_unusable,
)
from refocus.tuning.epochs import BEST, LAST, Progressed
from refocus.tuning.recipe import Recipe, recipe_of
from refocus.tuning.results import TuneResults, results_of
from refocus.tuning.selection import Selection, as_json, choose_samples, from_json, refuse_labels
from refocus.tuning.state import put_back
from refocus.tuning.tracking import check_tracker, say_untracked
from refocus.tuning.verdict import warning
from refocus.vit.classes import class_count
from refocus.vit.families import view
from refocus.vit.inputs import check_flag, check_path, shown
from refocus.vit.loading import load
from refocus.vit.own_models import recorded

log = logging.getLogger("refocus")

_OUTCOME = (MODEL, "results.json")  # of a run that was concluded


@put_back()
@torch.inference_mode(False)  # with gradients, whatever the caller switched off
def tune(
    recipe: Recipe,
    out: str | Path,
    *,
    on_epoch: Progressed | None = None,
    progress: bool = True,
    track: str | None = None,
) -> TuneResults:
    """Fine-tune a model's relevance with few images, and keep the result only if it does no harm.

    Writes `out/model` (a folder of the model's own library), `out/results.json` and the run's
    records. The method is that of Chefer, Schwartz and Wolf (NeurIPS 2022), the rule at the end is
    ours (docs/design.md).

    Args:
        recipe: model, folders, objective and schedule.
        out: a new folder, or that of a run with the same recipe, which resumes where it stopped; of
            a complete one the results are read, if the folders hold what they held then.
        on_epoch: called after each epoch with its line of `history.jsonl`.
        progress: show a progress bar on stderr.
        track: tensorboard, trackio, wandb or mlflow: log losses, validation, the final table and
            maps there (docs/tracking.md).

    Returns:
        What `results.json` holds: the best epoch, the candidates on the line between original and
        tuned weights, the choice, and the verdict in one sentence.

    Raises:
        InputError: the user's input cannot be used (nothing is written then), or `out` holds
            anything else.
        Diverged: a term of the loss became NaN or infinite.

    Examples:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> example = write("example")
        >>> recipe = refocus.Recipe(
        ...     str(example.model), str(example.images), str(example.masks),
        ...     objective="refocus", classes=2, shots=2, epochs=1, flip=0, device="cpu",
        ... )
        >>> results = refocus.tune(recipe, "run", progress=False)
        >>> results.best_epoch, results.trained_classes
        (0, ('0', '1'))
        >>> tuned = refocus.load("run/model")
    """
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipe: {shown(recipe)}; must be a refocus.Recipe")
    progress = check_flag("progress", progress)
    check_tracker(track)
    accelerator = accelerator_for(recipe)
    recipe = _absolute(recipe)
    model = load(recipe.model)
    (started,) = broadcast_object_list([(Path(out).expanduser() / SELECTION).exists()])
    watch = Watch(on_epoch, progress and accelerator.is_main_process, track)
    if started:  # the first process says it for all: it may be about to make the folder
        _refuse_other(recipe, out)
        return _continued(recipe, Path(out).expanduser(), model, accelerator, watch)
    view(model)
    refuse_unusable(recipe)
    selection = choose_samples(recipe, model, shown=watch.shown)
    grounds(recipe.backgrounds)
    _warn(recipe, selection, accelerator)
    folder: Path | None = None
    refusal = ""
    if accelerator.is_main_process:  # one process makes the folder; all stop if it may not
        try:
            places = ("images", "masks", "val", "val_masks", "backgrounds")
            read = {f"‹{name}›": getattr(recipe, name) for name in places}
            folder = outputs.new_folder(out, apart=read)
            _begin(recipe, selection, origins(recipe, model), folder)
        except InputError as error:
            refusal = error.marked
    folder, refusal = broadcast_object_list([folder, refusal])
    if refusal:
        raise InputError(refusal)
    with locks.released(folder):
        return finished(recipe, selection, model, folder, accelerator, watch, new=True)


def _warn(recipe: Recipe, selection: Selection, accelerator: Accelerator) -> None:
    """Say, once, what will not come of a run as it was asked for."""
    few = warning(len(selection.check), recipe.tolerance) if recipe.do_no_harm else ""
    alone = lone(recipe, len(selection.train), accelerator.num_processes)
    for said in (few, alone) if accelerator.is_main_process else ():
        if said:
            log.warning(Message(said))


def _refuse_other(recipe: Recipe, out: str | Path) -> None:
    """Stop where a run was started with another recipe; recipe: with absolute folders.

    How many processes read images is free: they only decide how fast it goes.
    """
    folder = Path(out).expanduser()
    before = replace(recipe_of(folder), workers=recipe.workers)
    outputs.refuse_other(out, before.to_dict(), recipe.to_dict(), folder / RECIPE)


def _begin(recipe: Recipe, selection: Selection, started: Mapping[str, str], folder: Path) -> None:
    """What a run is resumed from, selection.json last; all of it, or nothing."""
    folders = (recipe.images, recipe.masks, recipe.val, recipe.val_masks)
    content = {
        RECIPE: recipe.to_dict(),
        fingerprints.IDENTITY: fingerprints.identity(
            started,
            [*selection.files, *grounds(recipe.backgrounds), *lesson_files(recipe)],
            [Path(folder) for folder in folders if folder is not None],
        ),
        SELECTION: as_json(selection),
    }
    try:
        for name, value in content.items():
            write_json(folder / name, value)
    except BaseException:  # a full disk, a signal
        for name in content:
            (folder / name).unlink(missing_ok=True)
        raise


@put_back()
@torch.inference_mode(False)
def resume(
    run: str | Path,
    *,
    code: str | None = None,
    on_epoch: Progressed | None = None,
    progress: bool = True,
    track: str | None = None,
) -> TuneResults:
    """Continue an interrupted `tune` from its last whole epoch.

    On a CPU it ends with the same weights, bit for bit.

    Args:
        run: the folder of the run.
        code: "py:MODULE:FUNCTION" once more, where the run tunes a model of your own; its folder
            alone cannot name code to run.
        on_epoch: called after each epoch with its line of `history.jsonl`.
        progress: show a progress bar on stderr.
        track: tensorboard, trackio, wandb or mlflow: log losses, validation, the final table and
            maps there (docs/tracking.md).

    Returns:
        What `results.json` holds, as `tune` returns it.

    Raises:
        InputError: no such run, one that is complete, or one whose model or images have changed.
        Diverged: a term of the loss became NaN or infinite.

    Examples:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> example = write("example")
        >>> recipe = refocus.Recipe(
        ...     str(example.model), str(example.images), str(example.masks),
        ...     classes=2, shots=2, epochs=2, flip=0, device="cpu",
        ... )
        >>> def interrupt(line):
        ...     raise KeyboardInterrupt
        >>> try:
        ...     refocus.tune(recipe, "run", on_epoch=interrupt, progress=False)
        ... except KeyboardInterrupt:
        ...     pass
        >>> refocus.resume("run", progress=False).objective
        'refocus'
    """
    folder, progress = check_path(run, "run"), check_flag("progress", progress)
    check_tracker(track)
    if _complete(folder):
        raise InputError(f"‹run› {run}: this run is complete; its model is in {folder / MODEL}")
    if not (folder / SELECTION).exists():
        raise InputError(f"‹run› {run}: not a run folder of `refocus tune` (no selection.json)")
    recipe = recipe_of(folder)
    accelerator = accelerator_for(recipe)
    model = load(recorded(str(recipe.model), code))
    watch = Watch(on_epoch, progress and accelerator.is_main_process, track)
    return _continued(recipe, folder, model, accelerator, watch, shown=f"‹run› {run}")


def _continued(
    recipe: Recipe,
    folder: Path,
    model: nn.Module,
    accelerator: Accelerator,
    watch: Watch,
    *,
    shown: str = "",
) -> TuneResults:
    """What is left of a run in a folder that was started: the rest of it, or to read its results.

    model: as the recipe names it. shown: the folder in a message.
    """
    shown = shown or f"‹out› {folder}"
    chosen, complete = folder / SELECTION, _complete(folder)
    selection = from_json(read_json(chosen), chosen)
    refuse_labels(selection, class_count(model), chosen)
    name_by_folders(model, recipe.images)  # as when the run was started
    refusal = ""
    if accelerator.is_main_process:
        try:
            outputs.reopen(folder, origins(recipe, model), shown)
            if not complete:
                _open_again(folder, shown)
        except InputError as error:
            refusal = error.marked
    refusal, complete = broadcast_object_list([refusal, complete])
    if refusal:
        raise InputError(refusal)
    with locks.released(folder):
        if complete:
            if accelerator.is_main_process:
                say_untracked(watch.track)
            return results_of(folder)
        return finished(recipe, selection, model, folder, accelerator, watch)


def _complete(folder: Path) -> bool:
    """Whether a run was concluded, and what it came to is still there."""
    concluded = (folder / outputs.MANIFEST).exists()
    return concluded and not outputs.gone(folder, *_OUTCOME)


def _open_again(folder: Path, shown: str) -> None:
    """Of a run that was concluded and whose model is gone: make way for concluding it again.

    Raises:
        InputError: the weights that it would be made from are gone as well.
    """
    manifest = folder / outputs.MANIFEST
    if not manifest.exists():
        return
    missing = outputs.gone(folder, *_OUTCOME)[0]
    if any(not (folder / "checkpoints" / name).is_file() for name in (LAST, BEST)):
        locks.release(folder)
        raise InputError(
            f"{shown}: {folder / missing} is gone, and so are the checkpoints that it could be "
            "made from; name a new folder"
        )
    log.info(Message(f"{shown}: {missing} is gone; made again from the run's checkpoints"))
    manifest.unlink()


def _absolute(recipe: Recipe) -> Recipe:
    """With absolute folders, so that a run can be resumed from anywhere.

    Sources that are no folders stand as the class folders that they were unpacked into.
    """
    found = opened_pair(recipe.images, recipe.masks)
    val: str | Path | None = recipe.val
    val_masks: str | Path | None = recipe.val_masks
    if val is None and "val" in found.parts and (own := _validation(recipe)) is not None:
        val, val_masks = own.images, own.masks
    elif val is not None:
        own = opened_pair(val, val_masks, "val", part="test")
        val, val_masks = own.images, own.masks
    given = {"images": found.images, "masks": found.masks, "val": val, "val_masks": val_masks}
    given["backgrounds"], given["adain"] = recipe.backgrounds, recipe.adain
    places: dict[str, Any] = {
        k: None if v is None else str(Path(v).expanduser().resolve()) for k, v in given.items()
    }
    teacher = None if recipe.teacher is None else _absolute_teacher(str(recipe.teacher))
    return replace(recipe, model=references.resolved(str(recipe.model)), teacher=teacher, **places)


def _absolute_teacher(ref: str) -> str:
    """A teacher as given, its folder or file by the full path."""
    before, at, file = ref.partition("@")
    if ref.startswith("torchvision:") and at:
        return f"{before}@{Path(file).expanduser().resolve()}"
    return references.resolved(ref)


def _validation(recipe: Recipe) -> Opened | None:
    """The validation part of a data set that has one with masks; None where it lacks them."""
    masks = opened(recipe.masks, "masks")
    if "val" not in masks.parts:
        return None
    return opened_pair(f"{recipe.images}?split=val", f"{recipe.masks}?split=val")
