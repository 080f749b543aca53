"""The end of a run: which weights are kept, what was found, and the model's folder."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from refocus import outputs
from refocus.data.folders import name_by_folders
from refocus.data.shifts import grounds, unseen
from refocus.data.transforms import joint_transform
from refocus.files import write_json
from refocus.objectives.registry import OBJECTIVES
from refocus.progress import phase
from refocus.records import Sample, to_json
from refocus.results import Compared
from refocus.runs import MODEL
from refocus.tuning.checkpoints import Position, best_weights
from refocus.tuning.checks import BATCH, answers, interpolate, relevance_loss, unseen_answers
from refocus.tuning.epochs import BEST
from refocus.tuning.harm import candidates, choose, compare_right, shares_for, shortage
from refocus.tuning.loop import Diverged, masked_loader
from refocus.tuning.recipe import Recipe
from refocus.tuning.results import Candidate, TuneResults, Verdict
from refocus.tuning.selection import Selection
from refocus.tuning.verdict import judge
from refocus.vit.classes import class_names
from refocus.vit.loading import load, save, source


def conclude(
    recipe: Recipe,
    selection: Selection,
    folder: Path,
    best: Position,
    accelerator: Accelerator,
    progress: bool = False,
) -> TuneResults:
    """Choose between original and best weights, save the model and the finding.

    The manifest comes last. progress: show a progress bar on stderr.
    """
    if best.best < 0:
        raise Diverged("no epoch had a finite validation loss; lower ‹lr›")
    original = load(recipe.model, device=accelerator.device)
    name_by_folders(original, recipe.images)  # so that the tuned model carries them
    tuned = best_weights(folder / "checkpoints" / BEST, original)
    start = {name: value.clone() for name, value in original.state_dict().items()}
    own = OBJECTIVES[recipe.objective].share if recipe.share is None else recipe.share
    line = Line(start, tuned, tuple(sorted({*shares_for(len(selection.check)), own})))
    checked = check(recipe, selection.check, original, line, progress=progress)
    share = checked.verdict.share if recipe.do_no_harm else own
    original.load_state_dict(interpolate(start, tuned, share))
    save(original.cpu(), folder / MODEL)
    results = TuneResults(
        model=source(original),
        objective=recipe.objective,
        lr=float(recipe.lr or 0),
        best_epoch=best.best,
        check_images=len(selection.check),
        tolerance=recipe.tolerance,
        candidates=checked.candidates,
        advised_share=checked.verdict.share,
        chosen_share=share,
        verdict=checked.verdict,
        trained_classes=tuple(_names(selection.train, original)),
        unseen=checked.unseen,
    )
    write_json(folder / "results.json", to_json(results))
    outputs.finish(folder, "tune", seed=recipe.seed, processes=accelerator.num_processes)
    return results


@dataclass(frozen=True)
class Line:
    """The straight line from the original weights to the tuned ones, and the points on it."""

    start: dict[str, Tensor]
    end: dict[str, Tensor]
    shares: tuple[float, ...]

    def at(self, position: int) -> dict[str, Tensor]:
        """The weights at a position on the line."""
        return interpolate(self.start, self.end, self.shares[position])


@dataclass(frozen=True)
class Checked:
    """What the do-no-harm rule saw and says."""

    candidates: tuple[Candidate, ...]
    verdict: Verdict
    unseen: dict[str, Compared]


def check(
    recipe: Recipe, samples: list[Sample], model: nn.Module, line: Line, *, progress: bool = False
) -> Checked:
    """Put the points of a line to the do-no-harm rule on images that chose nothing.

    model: of the recipe; its weights are replaced. progress: show a progress bar on stderr.
    """
    if not samples:  # with the rule switched off
        sentence = "No image was left to check tuning for harm."
        return Checked((), Verdict(False, 0.0, sentence), {})
    files, points = grounds(recipe.backgrounds), range(len(line.shares))
    kinds = len(unseen(real=bool(files)))
    # as they are, swapped, and each kind with two of the weights
    passes = math.ceil(len(samples) / BATCH) * 2 * (len(points) + kinds) + 3
    with phase("checking that tuning does no harm", passes, shown=progress) as bar:
        # as whoever loads the saved model sees an image, whichever way it was tuned
        batches = list(masked_loader(samples, model, replace(recipe, protocol="standard")))
        images, masks, labels = (torch.cat([batch[i] for batch in batches]) for i in range(3))
        weights = [line.at(i) for i in points]
        plain, swapped = answers(model, weights, images, masks, labels, advance=bar.advance)
        found = candidates(line.shares, plain, swapped, recipe.tolerance)
        chosen = choose([c.stands for c in found])
        for i in sorted({0, chosen, points[-1]}):
            model.load_state_dict(weights[i])
            loss = relevance_loss(model, images, masks, labels)
            found[i] = replace(found[i], relevance_loss=loss)
            bar.advance()
        short = shortage(plain, swapped, recipe.tolerance)
        both = [weights[0], weights[chosen or short.position]]
        del weights  # as many models as there are points
        transform = joint_transform(model, train=False)
        rows = unseen_answers(model, both, samples, transform, files, advance=bar.advance)
    elsewhere = {kind: compare_right(now, before) for kind, (before, now) in rows.items()}
    verdict = judge(found, chosen, recipe.tolerance, short, elsewhere)
    return Checked(tuple(found), verdict, elsewhere)


def _names(samples: list[Sample], model: nn.Module) -> list[str]:
    names = class_names(model)
    return [
        names[label] if names else str(label) for label in dict.fromkeys(s.label for s in samples)
    ]
