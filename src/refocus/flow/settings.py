"""How `refocus run` goes about it. Imports no torch, so that the command line can read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from refocus.errors import InputError
from refocus.masks.choice import Backbone, default_backbone
from refocus.reports.settings import HELD_OUT, AuditSettings
from refocus.settings import (
    AtLeastTwo,
    Count,
    Device,
    Folders,
    MaskPolarity,
    PositiveOrZero,
    Precision,
    SeedOfAll,
    Text,
    Workers,
    about,
    check,
)
from refocus.tuning.recipe import Recipe


@dataclass(frozen=True)
class RunSettings:
    """How a run goes about it; every default is what we recommend.

    Raises:
        InputError: a value that is not legal.

    Example:
        >>> import refocus
        >>> settings = refocus.RunSettings(tests={"street": "street/images"}, most=100)
        >>> settings.shots, settings.tolerance
        (3, 1.0)
    """

    # name -> ImageFolder; what was trained on or chose anything is left out
    tests: Annotated[
        Folders,
        about("Test sets to compare original and tuned on: ImageFolders, or sets of `evaluate`."),
    ] = field(default_factory=dict)
    objective: Annotated[Text, about("What to train for.")] = Recipe.objective
    shots: Annotated[Count, about("Training images per class, of half of the classes.")] = (
        Recipe.shots
    )
    epochs: Annotated[Count, about("Passes over the training images.")] = Recipe.epochs
    tolerance: Annotated[
        PositiveOrZero, about("Percentage points of top-1 accuracy that tuning may cost.")
    ] = Recipe.tolerance
    backbone: Backbone = field(default_factory=default_backbone)
    mask_polarity: MaskPolarity = "ask"
    most: Annotated[
        AtLeastTwo,
        about("Maximum number of images with other backgrounds, spread over the classes."),
    ] = 300
    precision: Precision = "fp32"
    seed: SeedOfAll = 0
    workers: Workers = "auto"
    device: Device = "auto"

    def __post_init__(self) -> None:
        """Every field holds what is legal."""
        check(self)
        if HELD_OUT in self.tests:
            raise InputError(
                f"‹tests› {HELD_OUT}=...: the name of ‹images› that are not trained on; give the "
                "set another name"
            )


def audit_settings(settings: RunSettings) -> AuditSettings:
    """How the audit of a run is made."""
    return AuditSettings(
        mask_polarity=settings.mask_polarity,
        most=settings.most,
        precision=settings.precision,
        workers=settings.workers,
        seed=settings.seed,
        device=settings.device,
    )


def tuning_recipe(
    settings: RunSettings, model: str, images: str | Path, masks: str | Path
) -> Recipe:
    """How a run tunes."""
    return Recipe(
        model,
        str(images),
        str(masks),
        objective=settings.objective,
        shots=settings.shots,
        epochs=settings.epochs,
        tolerance=settings.tolerance,
        mask_polarity=settings.mask_polarity,
        skip_bad=True,  # masks that were found are wrong sometimes, and some images cannot be
        fewer=True,  # read: a long run does not end for one of them
        precision=settings.precision,
        seed=settings.seed,
        workers=settings.workers,
        device=settings.device,
    )
