"""The epochs of a run: train, validate, keep the best, and be ready to be interrupted."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from refocus.objectives.registry import Step
from refocus.progress import phase
from refocus.records import Sample, appending, write_line
from refocus.signals import uninterrupted
from refocus.tuning.checkpoints import Checkpoint, Position, keep_epochs, replace_file
from refocus.tuning.loop import Training, masked_loader, mean_terms
from refocus.tuning.trainable import plain_state

LAST, BEST = "last.pt", "best.safetensors"
Progressed = Callable[[dict[str, Any]], None]


def run_epochs(
    training: Training,
    step: Step,
    select: list[Sample],
    folder: Path,
    *,
    on_epoch: Progressed | None,
    progress: bool,
) -> Position:
    """All epochs that a run's folder does not hold yet.

    Args:
        training: at the start of a run; a checkpoint in `folder` is read into it.
        step: the objective.
        select: images that choose the epoch.
        folder: of the run.
        on_epoch: called after each epoch with its line of `history.jsonl`.
        progress: show a progress bar on stderr.

    Returns:
        The last epoch and the best one.
    """
    accelerator, recipe = training.accelerator, training.recipe
    kept = _Kept(training, folder)
    at = kept.resumed()
    validation = masked_loader(select, training.model, recipe)
    steps = len(training.batches)
    shown = progress and accelerator.is_main_process
    label, done = f"tuning ({recipe.objective})", (at.epoch + 1) * steps
    with phase(label, recipe.epochs * steps, done=done, shown=shown) as bar:
        for epoch in range(at.epoch + 1, recipe.epochs):
            line: dict[str, Any] = {"epoch": epoch, "lr": training.rate}
            line["train"] = training.epoch(epoch, step, bar.advance)
            if accelerator.is_main_process:
                line["validation"] = mean_terms(
                    training.model, validation, step, accelerator.device, epoch, shown=shown
                )
                at = kept.keep(line, at)
                now, best = line["validation"]["loss"], at.loss
                bar.note(f"validation loss {now:.4f}, kept {best:.4f}")
            accelerator.wait_for_everyone()
            if on_epoch:
                on_epoch(line)
    return at


class _Kept:
    """What the run's folder holds of its epochs."""

    def __init__(self, training: Training, folder: Path) -> None:
        self.training, self.checkpoints = training, folder / "checkpoints"
        self.history = folder / "history.jsonl"
        self.state = Checkpoint(training.model, training.optimizer, training.schedule)

    def resumed(self) -> Position:
        """Where the run stands; weights and optimizer are put there."""
        first = self.training.accelerator.is_main_process
        if first:
            self.checkpoints.mkdir(exist_ok=True)
        last = self.checkpoints / LAST
        at = self.state.read(last) if last.exists() else Position(-1, -1, math.inf)
        if first:
            keep_epochs(self.history, at.epoch)
        return at

    def keep(self, line: dict[str, Any], before: Position) -> Position:
        """Write an epoch's line, its checkpoint, and its weights where they are the best so far."""
        epoch, loss = line["epoch"], line["validation"]["loss"]
        better = self.training.recipe.select == "last" or loss < before.loss
        at = Position(epoch, epoch if better else before.best, loss if better else before.loss)
        with uninterrupted():  # a signal waits, so that all of an epoch is kept
            if better:
                weights = plain_state(self.training.model)
                replace_file(self.checkpoints / BEST, lambda path: save_file(weights, path))
            with appending(self.history) as file:
                write_line(file, line)
            self.state.write(self.checkpoints / LAST, at)
        return at
