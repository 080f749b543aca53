"""The page, the Markdown and the CSV of a tuning run or of an evaluation, made from its records."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from refocus import fingerprints, locks, outputs
from refocus.data.shifts import unseen
from refocus.data.trained import gone_images, trained_classes, trained_images
from refocus.errors import InputError
from refocus.evaluation import plan as plans
from refocus.evaluation.prove import measure
from refocus.evaluation.stored import RESULTS, read_evaluation
from refocus.figures.tables import accuracy_rows, as_csv, other_rows
from refocus.files import read_json, write_json, write_text
from refocus.reports import changes, report_page
from refocus.reports.settings import HELD_OUT, ReportSettings
from refocus.reports.told import Told, Tuning
from refocus.results import Evaluation
from refocus.runs import MODEL, REPORTED, SELECTION
from refocus.tuning.checkpoints import base_changed
from refocus.tuning.recipe import Recipe, recipe_of
from refocus.tuning.results import results_of
from refocus.tuning.selection import Selection, from_json
from refocus.vit import own_models
from refocus.vit.loading import identity, load_models, load_together
from refocus.vit.precision import check_precision, computing

log = logging.getLogger("refocus")
SHIFTS = ("mixed-same", "mixed-rand", "only-fg", "only-bg", "location", "size", "rotation")
PAGE = "report.html"


# --- measuring a run ----------------------------------------------------------------------------


def prove_run(run: Path, settings: ReportSettings, device: torch.device) -> Path:
    """Measure a finished tuning run's original against its tuned model.

    Without suites on the images it did not train on. Of a run that kept the original there is but
    one model to measure.

    Returns:
        The folder of the evaluation; what it holds already is not computed again.
    """
    tuned_from = str(recipe_of(run).model)
    plan = _plan(run, settings)
    original = own_models.recorded(tuned_from, settings.code)
    code = settings.code if original.startswith("py:") else None
    model: str = own_models.tuned(run / MODEL, code)
    against: str | None = tuned_from
    if results_of(run).kept_original:
        models = load_models(original, None, device)
        model, against = tuned_from, None
    else:
        models = load_models(model, original, device)
    check_precision(plan.precision, device)
    plans.check(models, plan)
    folder = _free(run, plans.decisive({"model": model, "against": against}, models, plan))
    with locks.released(folder):
        if not all((folder / name).exists() for name in (outputs.MANIFEST, RESULTS)):
            measure(models, plan, folder, model=model, against=against)
    return folder


def _plan(run: Path, settings: ReportSettings) -> plans.Plan:
    recipe = recipe_of(run)
    selection = selection_of(run)
    suites, masks = settings.suites, settings.masks
    polarity = _polarity(recipe, settings)
    if not suites:
        suites = {HELD_OUT: recipe.val or recipe.images}
        masks = {HELD_OUT: recipe.val_masks or recipe.masks}
    trained, chose = _used(selection, given=bool(settings.suites))
    plan = plans.Plan(
        suites,
        masks,
        (*SHIFTS, *unseen(real=recipe.backgrounds is not None)) if masks else (),
        faithful=settings.faithful,
        mask_score=recipe.mask_score,
        mask_polarity=polarity,
        most=settings.most,
        leave_out=trained | trained_images(str(recipe.model)),
        chose=chose,
        held_out=HELD_OUT if chose and HELD_OUT in suites else "",
        gone=_gone(run, trained | chose) | gone_images(str(recipe.model)),
        backgrounds=recipe.backgrounds,
        trained=trained_classes(str(run / MODEL)),
        seed=settings.seed,
        precision=settings.precision,
        workers=settings.workers,
    )
    return plans.with_sources(plan) if settings.suites else plan


def _polarity(recipe: Recipe, settings: ReportSettings) -> Literal["ask", "keep", "invert"]:
    """What is given; else the run's for its own masks, and "ask" for those of other test sets."""
    if settings.mask_polarity != "ask":
        return settings.mask_polarity
    own = {Path(path).resolve() for path in (recipe.masks, recipe.val_masks) if path is not None}
    given = {Path(path).expanduser().resolve() for path in settings.masks.values()}
    ours = not settings.suites or (given and given <= own)
    return recipe.mask_polarity if ours else "ask"


def _used(selection: Selection, *, given: bool) -> tuple[frozenset[Path], frozenset[Path]]:
    """Images that were trained on, and those that chose the epoch or the weights.

    given: whether there are test sets beside the held-out images, which the others are no part of.
    """
    chose = [*selection.select, *selection.check] if given else []
    trained, others = (
        frozenset(s.image.resolve() for s in part) for part in (selection.train, chose)
    )
    return trained, others


def _gone(run: Path, images: frozenset[Path]) -> dict[str, str]:
    """Contents of images that no longer lie where they were, so that they are left out elsewhere.

    Raises:
        InputError: an image is gone whose content was not kept.
    """
    found = fingerprints.gone(run / fingerprints.IDENTITY, images)
    if lost := sorted(i for i in images if str(i) not in found and not i.is_file()):
        raise InputError(
            f"‹run› {run}: {lost[0]} is gone, so copies of it under another name could not be "
            "left out of the test sets; put it back"
        )
    return found


def _free(run: Path, kept: dict[str, Any]) -> Path:
    """RUN/proof, or the first of RUN/proof-2, ... that is free or the same.

    Where other suites or options were measured in RUN/proof.
    """
    for number in count(1):
        folder = run / ("proof" if number == 1 else f"proof-{number}")
        settings = folder / "settings.json"
        if not settings.exists() or read_json(settings) == kept:
            return outputs.resumable(folder, True, kept)
    raise AssertionError  # count() does not end


# --- writing ------------------------------------------------------------------------------------


def write(
    folder: Path,
    out: Path,
    *,
    run: Path | None = None,
    code: str | None = None,
    device: torch.device,
) -> Evaluation:
    """Write report.html, report.md, report.csv and classes.csv into `out`.

    From an evaluation's folder; `run` adds what was done.
    """
    evaluation = read_evaluation(folder / RESULTS)
    tuning = _tuning(run) if run else None
    models = _models(evaluation, code, device, unchanged=tuning is not None and tuning.unchanged)
    changed = _changed(folder, evaluation, run, models)
    if changed:
        log.warning("%s: %s", out, changed)
    told = Told(folder, evaluation, tuning, changed)
    rows = [*accuracy_rows(evaluation.suites), *other_rows(evaluation.suites)]
    groups = changes.group_rows(evaluation.suites)
    rows += [replace(row, measure=f"top-1 of group {row.measure}") for row in groups]
    with computing(evaluation.precision):
        html = report_page.html(told, models)
    files = {
        PAGE: html,
        "report.md": report_page.text(told),
        "report.csv": as_csv(rows),
        "classes.csv": as_csv(changes.class_rows(evaluation.suites)),
    }
    for name, text in files.items():
        if (out / name).exists():
            log.info("%s: rewritten", out / name)
        write_text(out / name, text)
    if run:
        write_json(run / REPORTED, {"records": folder.name})
    return evaluation


def _models(
    evaluation: Evaluation, code: str | None, device: torch.device, *, unchanged: bool
) -> dict[str, nn.Module]:
    """By the names on the page, the original first; unchanged: it is the one that was measured."""
    refs = {"original": evaluation.against, "tuned": evaluation.model}
    if unchanged and evaluation.against is None:
        refs = {"original": evaluation.model}
    known = {title: own_models.recorded(ref, code) for title, ref in refs.items() if ref}
    return load_together(known, device)


def _changed(
    folder: Path, evaluation: Evaluation, run: Path | None, models: dict[str, nn.Module]
) -> str:
    """Which model is another today than when it was measured, or tuned from; "" where none is."""
    kept = read_json(folder / "settings.json")
    measured: dict[str, Any] = {"model": models.get("tuned", models.get("original"))}
    measured["against"] = models.get("original") if evaluation.against else None
    for title, which, ref in (
        ("model", "model", evaluation.model),
        ("base", "against", evaluation.against),
    ):
        before = kept.get(which) if isinstance(kept, dict) else None
        known = before if measured[which] is not None and before else []
        if ref and len(known) > 1 and identity(ref, measured[which]) != known:
            return (
                f"the {title} {ref} was changed after it was measured: the numbers are from the "
                "earlier one, the pictures from the current one"
            )
    if run and "original" in models and base_changed(run, models["original"]):
        return (
            f"the base {evaluation.against or evaluation.model} was changed after the run was "
            "tuned from it: the comparison is not with the run's original"
        )
    return ""


def selection_of(run: Path) -> Selection:
    """The images that a run trained on and chose with."""
    file = run / SELECTION
    return from_json(read_json(file), file)


def _tuning(run: Path) -> Tuning:
    probes = "probes/probes.html"
    return Tuning(
        recipe_of(run),
        selection_of(run),
        results_of(run),
        probes if (run / probes).exists() else "",
    )
