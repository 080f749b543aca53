"""What a study needs, looked at before its first run starts: it may take days until the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from refocus.data.sampling import TooFewError
from refocus.data.trained import say_left_out
from refocus.errors import InputError
from refocus.evaluation.maps import Gtsegs
from refocus.evaluation.plan import SEGMENTS
from refocus.evaluation.suites import SUITES
from refocus.studies.datasets import said_by_file
from refocus.studies.jobs import Job, left, masked_tests, recipe
from refocus.studies.order import ON_MASKS, Order
from refocus.tuning.recipe import Recipe
from refocus.tuning.selection import choose_samples
from refocus.vit.loading import load


def check(order: Order) -> None:
    """Stop where the data hold nothing that is measured, or one of the runs could not be done.

    Raises:
        InputError: a suite is missing or cannot be opened by a model, or a run has too few classes,
            masks or images to train and validate on; names the study and its row.
    """
    _refuse_nothing(order)
    for model in order.models:
        jobs = [job for job in order.jobs if job.model == model]
        open_jobs = [job for job in jobs if left(job, order.measured, order.out)]
        if open_jobs or not jobs:
            network = load(order.ground.models[model])
            _suites(order, network)
            _runs(order, open_jobs, network)


def _refuse_nothing(order: Order) -> None:
    """Stop where the data sets hold nothing that the study measures."""
    if order.map_images and not order.ground.own and SEGMENTS not in order.ground.suites:
        raise InputError(
            f"‹data›: [suites] does not name {SEGMENTS}, which study {order.name} needs"
        )
    if order.row.layout not in ON_MASKS and not order.suites:
        raise InputError(
            f"‹data›: [suites] names none of those of study {order.name}: "
            f"{', '.join(order.row.suites or SUITES)}"
        )


def _suites(order: Order, network: nn.Module) -> None:
    left_out: dict[str, tuple[int, int]] = {}
    for suite in order.suites:
        for tests in order.ground.tests(suite, network).values():
            gone = len(tests.left_out)
            left_out[suite] = (gone, gone + len(tests.samples))
    if not order.ground.own:  # of one's own images it was said when they were split
        say_left_out(left_out, order.ground.trained, order.ground.gone)
    if order.map_images and order.ground.own:
        masked_tests(order.ground, network)
    elif order.map_images:
        with said_by_file(own=False):
            Gtsegs(order.ground.suites[SEGMENTS], network).samples()


def _runs(order: Order, jobs: Sequence[Job], network: nn.Module) -> None:
    """Choose the images of each run; runs that choose alike are looked at once."""
    chosen = set()
    for job in jobs:
        if not job.variant.tunes or (job.folder(order.out) / "selection.json").exists():
            continue
        settings = recipe(job, order.ground, order.common)
        if (key := _choice(settings)) in chosen:
            continue
        chosen.add(key)
        try:
            choose_samples(settings, network)
        except InputError as error:
            said = error.marked
            if isinstance(error, TooFewError):  # a study has no option for how many
                said = (
                    f"class {error.name!r} has only {error.found} usable images for training, and "
                    f"each class needs {error.wanted}; add images"
                )
            raise InputError(
                f"{said} (study {order.name}, the row {job.variant.title!r} of {job.model})"
            ) from error


def _choice(settings: Recipe) -> tuple[Any, ...]:
    """What decides which images a run takes."""
    return (
        settings.masks,
        settings.classes,
        settings.class_seed,
        settings.shots,
        settings.seed,
        settings.fewer,
    )
