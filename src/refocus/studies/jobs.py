"""The runs of a study: tune, then answer every suite.

Each is done once, resumes where it stopped, and may have a process of its own on any machine
that sees the folder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refocus import locks, outputs
from refocus.data.folders import scan
from refocus.data.sampling import chosen
from refocus.data.trained import trained_classes
from refocus.evaluation.classify import answers_on, read_predictions
from refocus.evaluation.maps import Gtsegs, MaskedView, measure
from refocus.evaluation.plan import SEGMENTS
from refocus.files import write_json
from refocus.masks.trust import masked
from refocus.processes import Place
from refocus.records import MapRecord, Prediction, Sample, read_records
from refocus.studies.datasets import MASK_SCORE, Ground
from refocus.studies.registry import Variant, recipe_fields
from refocus.tuning.recipe import Recipe
from refocus.tuning.tune import tune
from refocus.vit.loading import load

_POLL = 2  # seconds between two looks for a job that another process left
MAPS = "maps"  # measured beside the suites
Levels = dict[str, list[Prediction]]  # level of a shift, or "" -> predictions


@dataclass(frozen=True)
class Job:
    """One run of a study: a model and how it is tuned."""

    model: str
    variant: Variant

    def folder(self, out: Path) -> Path:
        """The run's folder."""
        return out / "runs" / self.model / self.variant.name

    def records(self, out: Path, suite: str, level: str = "") -> Path:
        """The answers on a suite, one line an image."""
        return (
            out
            / "records"
            / self.model
            / self.variant.name
            / f"{suite}{'-' if level else ''}{level}.jsonl"
        )

    def done(self, out: Path, what: str) -> Path:
        """What says that a measurement is whole."""
        return out / "records" / self.model / self.variant.name / f"{what}.done.json"


def recipe(job: Job, ground: Ground, common: dict[str, Any]) -> Recipe:
    """How a job tunes.

    `common` are the user's settings for all runs, `rates` in it goes by objective.
    """
    kind = job.variant.masks or next(iter(ground.masks))
    rates = common.get("rates", {})
    settings = recipe_fields(
        job.variant,
        job.model,
        ground,
        {key: value for key, value in common.items() if key != "rates"},
    )
    if settings["objective"] in rates:
        settings["lr"] = rates[settings["objective"]]
    val = (
        {"val": str(ground.val), "val_masks": str(ground.val_masks)}
        if ground.val and ground.val_masks
        else {}
    )
    places = {
        "model": ground.models[job.model],
        "images": str(ground.train),
        "masks": str(ground.masks[kind]),
        **val,
    }
    return Recipe(**{**places, "do_no_harm": False, **settings})


@dataclass(frozen=True)
class How:
    """What is measured of each job, and where.

    wanted: suites, and `MAPS`, which are measured over `maps` images with masks chosen by `seed`.
    """

    wanted: tuple[str, ...]
    device: torch.device
    maps: int = 0
    seed: int = 0
    workers: int = 0
    progress: bool = True


def run(
    jobs: Sequence[Job], ground: Ground, out: Path, common: dict[str, Any], how: How, place: Place
) -> None:
    """Take jobs that no other process has done or is at, until all are done.

    Any number of processes may do so in one folder, on machines that see it: who holds the lock of
    a job's folder does the job, and the lock ends with its process. `place` says where in the list
    to begin, so that processes that start together do not all ask for the same job.
    """
    first = len(jobs) * place.rank // place.count
    todo = [*jobs[first:], *jobs[:first]]
    while todo := [job for job in todo if left(job, how.wanted, out)]:
        if not any(_taken(job, ground, out, common, how) for job in todo):
            time.sleep(_POLL)


def _taken(job: Job, ground: Ground, out: Path, common: dict[str, Any], how: How) -> bool:
    """Do a job unless another process is at it; whether it was done here."""
    folder = job.records(out, "").parent
    folder.mkdir(parents=True, exist_ok=True)
    if not locks.is_free(folder):
        return False
    with locks.released(folder):
        outputs.clean(folder)
        if left(job, how.wanted, out):  # else another process was faster
            _one(job, ground, out, common, how)
    return True


def _one(job: Job, ground: Ground, out: Path, common: dict[str, Any], how: How) -> None:
    """Tune, where the job does, and measure what is left."""
    model: str | Path = ground.models[job.model]
    if job.variant.tunes:
        tune(recipe(job, ground, common), job.folder(out), progress=how.progress)
        model = job.folder(out) / "model"
    network = load(model, device=how.device)
    for what in left(job, how.wanted, out):
        title = f"{job.model}, {job.variant.name}: {what}" if how.progress else ""
        if what == MAPS:
            _measure_maps(job, network, ground, out, how, title)
        else:
            for level, tests in ground.tests(what, network).items():
                records = job.records(out, what, level)
                answers_on(network, tests, records=records, workers=how.workers, label=title)
        write_json(job.done(out, what), {"finished": time.time()})


def left(job: Job, wanted: Sequence[str], out: Path) -> list[str]:
    """What of `wanted` a job has not measured yet."""
    return [what for what in wanted if not job.done(out, what).exists()]


def masked_tests(ground: Ground, model: nn.Module) -> list[Sample]:
    """The user's own test images that have masks."""
    assert ground.test_masks is not None  # the user's own ground has them
    samples = scan(
        ground.suites["natural"], model, masks=ground.test_masks, mask_polarity=ground.mask_polarity
    )
    unseen = ground.untrained(samples, f"‹on› {ground.suites['natural']}")
    return masked(unseen, ground.test_masks, MASK_SCORE)


def _measure_maps(
    job: Job, model: nn.Module, ground: Ground, out: Path, how: How, title: str
) -> None:
    measured = partial(
        measure, model, records=job.records(out, MAPS), workers=how.workers, label=title
    )
    if not ground.own:
        file = ground.suites[SEGMENTS]
        load_one = Gtsegs(file, model, ground.protocol)
        measured(load_one.samples(), file.parent, load_one)
        return
    samples = masked_tests(ground, model)
    kept = chosen(samples, how.maps, how.seed)
    some = [s for s in samples if s.image in kept]
    measured(some, ground.suites["natural"], MaskedView(model, ground.protocol))


# --- what a finished job says -------------------------------------------------------------------


def answers(job: Job, ground: Ground, suite: str, out: Path) -> Levels:
    """Level -> predictions."""
    levels = (
        sorted(job.records(out, suite).parent.glob(f"{suite}-*.jsonl"))
        if ground.own and ground.like(suite) != suite
        else []
    )
    levels = [file for file in levels if not job.records(out, suite).exists()]
    files = {file.stem.removeprefix(f"{suite}-"): file for file in levels} or {
        "": job.records(out, suite)
    }
    return {level: read_predictions(file) for level, file in files.items()}


def pooled(levels: Levels) -> list[Prediction]:
    """All levels in one list, each image named by its level as well."""
    return [
        replace(p, image=named(level, p.image)) for level, found in levels.items() for p in found
    ]


def named(level: str, image: str) -> str:
    """An image of one level of a suite; most suites have one level, without a name."""
    return f"{level}/{image}" if level else image


def maps_of(job: Job, out: Path) -> list[MapRecord]:
    """Records of the maps."""
    return read_records(job.records(out, MAPS), MapRecord).rows


def trained_labels(job: Job, out: Path) -> frozenset[int]:
    """Labels of the classes that a job trained on."""
    return trained_classes(str(job.folder(out) / "model"))
