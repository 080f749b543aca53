"""A learning rate of "auto": the paper's rule for it (Section 4), as a short search.

The search keeps what it tried.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch import nn

from refocus.errors import Message
from refocus.objectives.registry import Step
from refocus.progress import phase
from refocus.relevance.answers import logits_of
from refocus.tuning.loop import Diverged, Training, masked_loader, mean_terms
from refocus.tuning.recipe import Recipe
from refocus.tuning.selection import Selection
from refocus.vit.loading import load

log = logging.getLogger("refocus")
TRIES = 6  # rates, evenly spaced on a logarithmic scale
FALL = 2.5  # points of validation accuracy; the paper says "2-3 %"
_PART = 5  # a try takes this part of the epochs


def grid(low: float, high: float) -> list[float]:
    """The rates to try, the highest first, two digits each."""
    return [float(f"{rate:.1e}") for rate in np.geomspace(high, low, TRIES)]


def search(
    recipe: Recipe, selection: Selection, step: Step, accelerator: Accelerator, *, progress: bool
) -> dict[str, Any]:
    """The highest rate with which accuracy holds and the classification term does not rise.

    Validation accuracy may fall by at most `FALL` points.

    Each try starts from the original weights and takes a fifth of the epochs. Both are measured on
    the images that choose the epoch: those of the do-no-harm rule choose nothing. Stops at the
    first rate that passes.

    Returns:
        {"lr": rate, "passed": whether it passed or is merely the lowest, "before": {...}, "tried":
        [{"lr", "top1", "classification", "passed"}, ...]}
    """
    model = load(recipe.model, device=accelerator.device)
    # in the number format of the tries, which it is compared with
    model = accelerator.prepare_model(model, evaluation_mode=True)
    before = _measure(recipe, selection, model, step, accelerator)
    tried: list[dict[str, Any]] = []
    epochs = math.ceil(recipe.epochs / _PART)
    shown = progress and accelerator.is_main_process
    with phase("searching the rate", TRIES * epochs, shown=shown) as bar:
        for lr in grid(*recipe.lr_range):
            try:
                training = _trained(recipe, lr, selection, step, accelerator, bar.advance)
                line = _measure(recipe, selection, training.model, step, accelerator)
                tried.append({"lr": lr, **line, "passed": passes(line, before)})
            except Diverged:
                tried.append({"lr": lr, "top1": None, "classification": None, "passed": False})
            finally:
                accelerator.free_memory()
            (tried[-1],) = broadcast_object_list([tried[-1]])  # the first process decides for all
            if tried[-1]["passed"]:
                break
    if accelerator.is_main_process:
        _tell(tried, before)
    chosen = tried[-1]
    return {"lr": chosen["lr"], "passed": chosen["passed"], "before": before, "tried": tried}


def _trained(
    recipe: Recipe,
    lr: float,
    selection: Selection,
    step: Step,
    accelerator: Accelerator,
    advance: Callable[[], None],
) -> Training:
    """One try: a part of the epochs from the original weights."""
    set_seed(recipe.seed)
    training = Training(recipe, lr, load(recipe.model), selection.train, accelerator)
    for epoch in range(math.ceil(recipe.epochs / _PART)):
        training.epoch(epoch, step, lambda: None)
        advance()
    return training


def _tell(tried: list[dict[str, Any]], before: dict[str, float]) -> None:
    """What came of each rate, on the log."""
    for line in tried:
        if line["top1"] is None:
            numbers = "diverged"
        else:
            numbers = (
                f"top-1 {before['top1']:.1f} -> {line['top1']:.1f}, classification "
                f"{before['classification']:.4f} -> {line['classification']:.4f}"
            )
        passed = "passes" if line["passed"] else "does not pass"
        log.info(Message("‹lr=auto›: %g %s (%s)"), line["lr"], passed, numbers)
    if not tried[-1]["passed"]:
        log.warning(
            Message(
                "‹lr=auto›: no rate passes, so the lowest is used; give a lower ‹lr_range› or "
                "another ‹lr›"
            )
        )


def passes(after: dict[str, float], before: dict[str, float]) -> bool:
    """The paper's two conditions."""
    return (
        before["top1"] - after["top1"] <= FALL
        and after["classification"] <= before["classification"]
    )


def _measure(
    recipe: Recipe, selection: Selection, model: nn.Module, step: Step, accelerator: Accelerator
) -> dict[str, float]:
    terms = mean_terms(
        model, masked_loader(selection.select, model, recipe), step, accelerator.device, epoch=0
    )
    right = total = 0
    with torch.inference_mode():
        for images, _, labels in masked_loader(selection.select, model, recipe):
            right += int(
                (logits_of(model, images.to(accelerator.device)).argmax(1).cpu() == labels).sum()
            )
            total += len(labels)
    return {
        "top1": 100 * right / total,
        "classification": terms.get("classification", terms["loss"]),
    }
