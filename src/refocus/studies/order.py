"""What is asked of a study, and the runs that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from refocus.evaluation.plan import SEGMENTS
from refocus.studies import jobs
from refocus.studies.datasets import Ground, classes_with_masks
from refocus.studies.jobs import MAPS, Job, Levels
from refocus.studies.registry import (
    Study,
    Variant,
    draws_of,
    models_of,
    suites_of,
    variants_of,
)
from refocus.vit.loading import pick_device

ON_MASKS = ("segmentation", "salience")  # layouts that need test images with masks, and no suite
WITHOUT_RUNS = ("subsets", "salience")  # layouts of the models as they came


@dataclass(frozen=True)
class Order:
    """What the user asked for.

    common: settings of every run, `rates` by objective. maps: images for the maps of Table 3.
    seeds: draws of each row; None: as many as the study has.
    """

    name: str
    row: Study
    ground: Ground
    out: Path
    common: dict[str, Any]
    models_given: bool = False
    maps: int = 200
    workers: int | Literal["auto"] = 0
    seeds: int | None = None

    @property
    def about(self) -> str:
        """What it shows, on the suites that are here."""
        return self.row.told(self.suites)

    @property
    def models(self) -> list[str]:
        """Names of the models that are run."""
        return models_of(self.row, self.ground, self.models_given)

    @property
    def suites(self) -> list[str]:
        """Names of the suites that are measured."""
        every = [name for name in suites_of(self.row, self.ground) if name != SEGMENTS]
        return [] if self.row.layout in ON_MASKS else every

    @property
    def variants(self) -> list[Variant]:
        """The rows of the study that can be run here."""
        if self.row.layout != "samples":
            return variants_of(self.row, self.ground, 0, 0)
        return variants_of(self.row, self.ground, self.classes, self.trained)

    @cached_property
    def classes(self) -> int:
        """How many classes there are to train on: those that have masks."""
        return classes_with_masks(self.ground)

    @property
    def trained(self) -> int:
        """How many classes a run trains on where nothing else is said: half, or the paper's 500."""
        given: int = self.common.get("classes", self.ground.recipe.get("classes", 0))
        return given or max(1, self.classes // 2)

    def runs(self, model: str, variant: Variant) -> list[Job]:
        """The jobs behind a row: one, or one for each draw."""
        drawn = draws_of(self.row, variant, self.draws, self.seed)
        return [Job(model, one) for one in drawn]

    @property
    def draws(self) -> int:
        """How many runs a row is the mean of."""
        return self.seeds or self.row.draws or 1

    @property
    def seed(self) -> int:
        """Of every random choice; of the first draw, where there are several."""
        found: int = self.common.get("seed", 0)
        return found

    @property
    def device(self) -> torch.device:
        """Where runs are measured, and pictures made."""
        return pick_device(self.common.get("device", "auto"))

    @property
    def jobs(self) -> list[Job]:
        """Every model with every variant, and each of its draws."""
        if self.row.layout in WITHOUT_RUNS:
            return []
        return [job for m in self.models for v in self.variants for job in self.runs(m, v)]

    def answers(self, job: Job, suite: str) -> Levels:
        """Level -> predictions of a finished job."""
        return jobs.answers(job, self.ground, suite, self.out)

    @property
    def measured(self) -> list[str]:
        """What each run answers: the suites, and the maps where they are measured."""
        return [*self.suites, *([MAPS] if self.map_images else [])]

    @property
    def map_images(self) -> int:
        """How many images have their maps measured."""
        wants = self.row.layout in ON_MASKS or (
            self.row.layout == "claims" and SEGMENTS in self.ground.suites
        )
        return self.maps if wants else 0
