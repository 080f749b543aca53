"""What an evaluation measures, and which shifts are made.

Imports no torch, so that the command line can read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from refocus.errors import InputError
from refocus.settings import (
    AtLeastTwo,
    BatchSize,
    CountOrZero,
    Device,
    Folders,
    MaskPolarity,
    MaskScore,
    PathText,
    Precision,
    Seed,
    SeedOfAll,
    Text,
    Workers,
    about,
    check,
)

Backgrounds = Annotated[
    PathText | None,
    about("Folder of images without objects of the classes, for the shift real."),
]


@dataclass(frozen=True)
class EvaluationSettings:
    """What to measure, and how.

    Raises:
        InputError: a value that is not legal.
    """

    suites: Annotated[
        Folders,
        about(
            "An ImageFolder of your classes under any name, or a known test set by its name: "
            "cue-conflict, imagenet-segmentation (gtsegs_ijcv.mat), or one of those below."
        ),
    ]
    masks: Annotated[
        Folders,
        about("Masks of a test set of your own, by its name, for map scores and ‹shifts›."),
    ] = field(default_factory=dict)
    shifts: Annotated[
        tuple[Text, ...],
        about("Shifts made from images and masks, or all. See also `refocus shifts --help`."),
    ] = ()
    backgrounds: Backgrounds = None
    protocol: Annotated[
        Literal["standard", "paper", "both"] | None,
        about(
            "How answers are counted (docs/evaluation.md). Default: both for known sets, standard "
            "for your own."
        ),
    ] = None
    groups: Annotated[
        Folders,
        about(
            "CSV file of a test set, by its name, with the columns image,group: adds accuracy per "
            "group, the worst first."
        ),
    ] = field(default_factory=dict)
    mapping: Annotated[
        PathText | None,
        about('For cue-conflict with your own classes: JSON {"cat": ["tabby", ...], ...}.'),
    ] = None
    faithful: Annotated[
        CountOrZero,
        about("With ‹masks›: images for insertion and deletion, 36 forward passes each."),
    ] = 0
    mask_score: MaskScore = 0.5
    mask_polarity: MaskPolarity = "ask"
    most: Annotated[
        AtLeastTwo | None,
        about("With ‹masks›: maximum number of images, spread over the classes. Default: all."),
    ] = None
    batch_size: BatchSize = 64
    precision: Precision = "fp32"
    workers: Workers = "auto"
    seed: SeedOfAll = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        """Every field holds what is legal."""
        check(self)
        if not self.suites:
            raise InputError("‹suites›: empty; name at least one test set and its folder")


@dataclass(frozen=True)
class ShiftSettings:
    """Which shifts are made of which masks.

    Raises:
        InputError: a value that is not legal.

    Examples:
        >>> import refocus
        >>> refocus.ShiftSettings(kinds=("size", "rotation")).mask_score
        0.5
    """

    kinds: Annotated[
        tuple[Text, ...], about("Kinds of shift, or all. Curves have a folder for each level.")
    ] = ("only-fg", "only-bg", "mixed-same", "mixed-rand")
    backgrounds: Backgrounds = None
    mask_score: MaskScore = 0.5
    mask_polarity: MaskPolarity = "ask"
    workers: Annotated[
        Workers,
        about("Number of processes that make images. auto: up to 8 beside a GPU, else none."),
    ] = "auto"
    seed: Annotated[Seed, about("Seed for the choice of each object's background.")] = 0

    def __post_init__(self) -> None:
        """Every field holds what is legal."""
        check(self)
        from refocus.data import shifts  # loads torch

        kinds = shifts.kinds(self.kinds, real=self.backgrounds is not None)
        object.__setattr__(self, "kinds", tuple(kinds))
