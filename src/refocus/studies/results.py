"""What a study finds: OUT/NAME.json holds a `StudyResults` (docs/schema.md). Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from refocus.results import Change, Estimate, GroupChange

SCHEMA = 1  # of NAME.json; the first version wrote none
AVERAGE = "average"  # in a line's place of a model: the mean over all models of the study


@dataclass(frozen=True)
class Line:
    """One number of one method on one test set, beside the paper's."""

    model: str  # as the study calls it, or "average" over all of its models
    method: str  # title of the row
    suite: str  # name of the test set
    metric: str  # "top1", "top5", "pixel_accuracy", "miou" or "map"
    number: Estimate  # percent; over several draws their mean
    change: Change | None = None  # against the original on the same images, points
    spread: float | None = None  # standard deviation over draws, points
    draws: int = 1  # runs that the number is the mean of
    paper: float | None = None  # the paper's number, percent
    paper_change: float | None = None  # the paper's number minus its original, points
    classes: Literal["all", "trained", "untrained"] = "all"  # whose images count


@dataclass(frozen=True)
class Claim:
    """One number of the paper's Tables 1 to 3 beside ours."""

    dataset: str  # title of the test set
    model: str  # the paper's, with its name of the method
    metric: str  # title
    claimed: float  # percent, as printed
    ours: float | None  # percent; None where it was not run
    status: str  # "verified", "not reproduced", "not decided" or "not run"
    n: int = 0  # images
    p: float | None = None  # of the equivalence test; None where there are too few images


@dataclass(frozen=True)
class Subset:
    """The fewest pixels of one image with which the model names one class."""

    image: str  # file name
    target: str  # name of the class
    predicted: bool  # is it the class that the model names for the whole image?
    found: bool  # was a subset above the confidence found?
    share: float | None  # of the pixels, in [0, 1]
    confidence: float | None  # softmax share of the target


@dataclass(frozen=True)
class Subsets:
    """Sufficient input subsets of one model."""

    model: str  # as the study calls it
    pairs: int  # of an image and a random class
    reached: float | None  # percent of the pairs for which a subset was found
    median_share: float | None  # of the pixels, over the pairs that were reached, in [0, 1]
    confidence: float  # softmax share that a subset has to exceed
    rows: tuple[Subset, ...]  # image by image, the predicted class first


@dataclass(frozen=True)
class Salience:
    """How often one model looks at the background, or at few patches of the object."""

    model: str  # as the study calls it
    background: Estimate  # percent of the images with over 90 % of the relevance on the background
    sparse: Estimate  # percent with half of the object's relevance on under 5 % of its patches
    sure: int  # images of either kind with a confidence above 90 %


@dataclass(frozen=True)
class StudyResults:
    """What `NAME.json` of `refocus study` holds."""

    study: str  # its name
    about: str  # what it shows
    facts: dict[str, str]  # what was done, such as "models" or "settings"
    text: str  # what NAME.md says: the table, or a summary
    lines: tuple[Line, ...] = ()  # numbers of a table
    claims: tuple[Claim, ...] = ()  # of the reproduction sheet
    classes: dict[str, tuple[GroupChange, ...]] = field(
        default_factory=dict
    )  # "MODEL: SUITE" -> change of each class, largest gain first
    subsets: tuple[Subsets, ...] = ()  # of Appendix A, by model
    salience: tuple[Salience, ...] = ()  # of Figure 1, by model
    schema: int = SCHEMA  # version of this file
