"""How audits and reports are made. Imports no torch, so that the command line can read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from refocus.errors import InputError
from refocus.evaluation.settings import Backgrounds
from refocus.masks.choice import Backbone, default_backbone
from refocus.settings import (
    AtLeastTwo,
    Device,
    Faithful,
    Folders,
    MaskPolarity,
    MaskScore,
    Precision,
    Seed,
    SeedOfAll,
    Text,
    Workers,
    about,
    check,
)

HELD_OUT = "held-out"  # name of the suite that a run is measured on where none is given


@dataclass(frozen=True)
class AuditSettings:
    """How an audit is made.

    Raises:
        InputError: a value that is not legal.

    Example:
        >>> import refocus
        >>> refocus.AuditSettings(most=100).mask_score
        0.5
    """

    mask_polarity: MaskPolarity = "ask"
    backbone: Backbone = field(default_factory=default_backbone)
    most: Annotated[
        AtLeastTwo,
        about("Maximum number of images with swapped backgrounds, spread over the classes."),
    ] = 300
    backgrounds: Backgrounds = None
    faithful: Faithful = 0
    mask_score: MaskScore = 0.5
    precision: Precision = "fp32"
    workers: Workers = "auto"
    seed: Annotated[Seed, about("Seed for the choice of images and backgrounds.")] = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        """Every field holds what is legal."""
        check(self)


@dataclass(frozen=True)
class ReportSettings:
    """How the report of a tuning run measures; the page of an evaluation or of probes only reads.

    Without suites original and tuned model are compared on images that the run did not train on.

    Raises:
        InputError: a value that is not legal.

    Example:
        >>> import refocus
        >>> refocus.ReportSettings(suites={"test": "images"}, masks={"test": "masks"}).most
        300
    """

    suites: Annotated[
        Folders,
        about(
            "For a tuning run: test sets to compare original and tuned on, as in `evaluate`. "
            "Images that it trained on or chose with are left out. Default: its held-out images."
        ),
    ] = field(default_factory=dict)
    masks: Annotated[
        Folders, about("Masks of a test set of your own, by its name, for shifts and maps.")
    ] = field(default_factory=dict)
    most: Annotated[
        AtLeastTwo,
        about("Maximum number of images to measure with masks, spread over the classes."),
    ] = 300
    faithful: Faithful = 0
    mask_polarity: Annotated[
        MaskPolarity,
        about(
            "Of ‹masks›: ask: stop if most masks seem to mark the background. keep: use them as "
            "they are. invert: swap object and background. Default: the run's own masks as it "
            "read them, others by ask."
        ),
    ] = "ask"
    precision: Precision = "fp32"
    workers: Workers = "auto"
    code: Annotated[
        Text | None,
        about(
            "For a model of your own: its py:MODULE:FUNCTION again, because a run folder cannot "
            "name code to run."
        ),
    ] = None
    seed: SeedOfAll = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        """Every field holds what is legal."""
        check(self)
        if self.masks and not self.suites:
            name, path = next(iter(self.masks.items()))
            raise InputError(f"‹masks› {name}={path}: of which suite? give ‹suites› as well")
        if self.mask_polarity != "ask" and not self.suites:
            raise InputError(
                f"‹mask_polarity› {self.mask_polarity}: only with ‹suites›; the run reads its own "
                "masks as it did before"
            )
