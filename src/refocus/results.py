"""What measuring finds: a number with its interval, a paired change, and the entries made of them.

Every measuring function returns these; pages, tables and charts read their attributes, and
`results.json` and `audit.json` hold them (docs/schema.md). `model` is the model that is judged,
`against` the one it is compared with, such as the one before tuning; a change is always `model`
minus `against` over the same images. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

SCHEMA = 2  # of results.json, also of a run, and audit.json; 1 is that of versions up to 0.1
Interval = tuple[float, float]  # 95 %, low before high


@dataclass(frozen=True)
class Estimate:
    """One number over `n` images in the measure's unit."""

    value: float | None  # None where there is no image
    interval: Interval | None  # 95 %; None where there is too little to say, or none was computed
    n: int  # images

    @property
    def negative(self) -> Estimate:
        """The number with its sign turned, such as a loss for a change."""
        interval = None if self.interval is None else (-self.interval[1], -self.interval[0])
        return Estimate(None if self.value is None else -self.value, interval, self.n)


@dataclass(frozen=True)
class Change:
    """`model` minus `against` over the same `n` images, in the measure's unit."""

    difference: float | None  # None where there are too few images
    interval: Interval | None  # 95 %, paired
    n: int  # images that both answered
    p: float | None = None  # two-sided, of the exact paired test; None: the interval alone counts
    corrected: int | None = None  # images that `model` alone gets right
    broken: int | None = None  # images that `against` alone gets right

    @property
    def decided(self) -> int:
        """1 or -1 where the interval leaves 0 out and the test, if there is one, agrees, else 0."""
        if self.interval is None or (self.p is not None and self.p >= 0.05):
            return 0
        low, high = self.interval
        return 1 if low > 0 else -1 if high < 0 else 0


@dataclass(frozen=True)
class Compared:
    """One measure of a model and, where there is one, of the model it is compared with."""

    model: Estimate  # the model that is judged
    against: Estimate | None = None  # the model compared with
    change: Change | None = None  # model minus against


def _not_below_0(found: Estimate) -> Estimate:
    return found if found.value is None else replace(found, value=max(0.0, found.value))


# --- accuracies ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassAccuracy:
    """How often one model is right on the images of one class."""

    top1: float  # percent
    top5: float  # percent
    n: int  # images


@dataclass(frozen=True)
class GroupAccuracy:
    """How often one model is right on the images of one group."""

    name: str  # of the group
    top1: Estimate  # percent
    top5: float  # percent


@dataclass(frozen=True)
class Accuracy:
    """How often one model is right on a test set, and how well it knows."""

    top1: Estimate  # percent
    top5: Estimate  # percent
    calibration_error: Estimate  # squared, of the first answer; by chance it may fall below 0
    per_class: dict[str, ClassAccuracy]  # name of the class folder -> its accuracies


@dataclass(frozen=True)
class AccuracyChange:
    """Change of the accuracies over the images that both models answered."""

    top1: Change  # percentage points, with McNemar's exact test
    top5: Change  # percentage points, likewise


@dataclass(frozen=True)
class GroupChange:
    """Accuracies of both models on the shared images of one class or group."""

    name: str  # of the class folder or group
    model: float  # top-1, percent
    against: float  # top-1, percent
    change: AccuracyChange  # paired

    @property
    def gain(self) -> float:
        """Top-1 of `model` minus that of `against`, in points."""
        return self.model - self.against

    @property
    def moved(self) -> Estimate:
        """The gain with its interval, which a group of one image has not."""
        return Estimate(self.gain, self.change.top1.interval, self.change.top1.n)


@dataclass(frozen=True)
class Classification:
    """The answers of one model, or of two, on one test set."""

    model: Accuracy  # the model that is judged
    against: Accuracy | None = None  # the model compared with
    change: AccuracyChange | None = None  # model minus against
    calibration_change: Change | None = None  # of the squared calibration error
    class_changes: tuple[GroupChange, ...] = ()  # by class, largest gain first
    trained_changes: tuple[GroupChange, ...] = ()  # classes tuned on, and never tuned on
    groups: tuple[GroupAccuracy, ...] = ()  # of `model`, the worst group first
    group_changes: tuple[GroupChange, ...] = ()  # by group, largest gain first
    unreadable: dict[str, str] = field(default_factory=dict)  # image -> why it was skipped

    @property
    def n(self) -> int:
        """Images that the model answered."""
        return self.model.top1.n

    @property
    def top1(self) -> Compared:
        """Percent."""
        return Compared(
            self.model.top1,
            of(self.against, lambda found: found.top1),
            of(self.change, lambda found: found.top1),
        )

    @property
    def top5(self) -> Compared:
        """Percent."""
        return Compared(
            self.model.top5,
            of(self.against, lambda found: found.top5),
            of(self.change, lambda found: found.top5),
        )

    @property
    def calibration_error(self) -> Compared:
        """Squared, to be shown: an estimate that chance puts below 0 counts as 0.

        The change is that of the estimates as they are.
        """
        return Compared(
            _not_below_0(self.model.calibration_error),
            of(self.against, lambda found: _not_below_0(found.calibration_error)),
            self.calibration_change,
        )


# --- shifts, background, cues -------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """One level of a shift."""

    level: str  # its name, such as a size in percent
    top1: Compared  # percent


@dataclass(frozen=True)
class ShiftEntry:
    """Answers on images that were changed by one kind of shift."""

    about: str  # what the shift does
    chance: float  # top-1 of always giving the commonest label, percent
    answers: Classification | None = None  # of a shift without levels
    mean: Compared | None = None  # of a shift with levels: top-1 over images, each at all levels
    levels: tuple[Level, ...] = ()  # one by one, in order

    @property
    def top1(self) -> Compared:
        """Percent; the mean over the levels where there are some."""
        found = self.mean if self.answers is None else self.answers.top1
        assert found is not None  # a shift has levels or answers
        return found


@dataclass(frozen=True)
class Reliance:
    """How much one model relies on the background, over the same images."""

    bg_gap: Estimate  # top-1 on mixed-same minus mixed-rand, points (Xiao et al., ICLR 2021)
    bg_gap_p: float  # McNemar's exact test of the two
    confidence_change: Estimate  # share of the true class, mixed-rand minus mixed-same
    plain: Estimate  # top-1 on the images as they are, percent
    mixed_same: Estimate  # top-1 on backgrounds of the same class, percent
    mixed_rand: Estimate  # top-1 on backgrounds of other classes, percent


@dataclass(frozen=True)
class RelianceChange:
    """Change of the reliance on the background over the images that both models answered."""

    bg_gap: Change  # points
    confidence_change: Change  # of shares in [0, 1]


@dataclass(frozen=True)
class Background:
    """Reliance on the background of one model, or of two."""

    model: Reliance  # the model that is judged
    against: Reliance | None = None  # the model compared with
    change: RelianceChange | None = None  # model minus against

    @property
    def bg_gap(self) -> Compared:
        """Points."""
        return Compared(
            self.model.bg_gap,
            of(self.against, lambda found: found.bg_gap),
            of(self.change, lambda found: found.bg_gap),
        )

    @property
    def confidence_change(self) -> Compared:
        """Of shares in [0, 1]."""
        return Compared(
            self.model.confidence_change,
            of(self.against, lambda found: found.confidence_change),
            of(self.change, lambda found: found.confidence_change),
        )


@dataclass(frozen=True)
class ShapeBias:
    """Decisions of one model on stimuli whose shape and texture differ."""

    shape_bias: Estimate  # share of decisions for the shape; n: of those for a cue
    shape_decisions: int  # stimuli named by their shape
    texture_decisions: int  # stimuli named by their texture
    other_decisions: int  # stimuli named otherwise
    dropped_same: int  # stimuli left out because both cues agree
    dropped_unmapped: int  # stimuli left out because the model has no class for a cue

    @property
    def stimuli(self) -> int:
        """Those that count."""
        return self.shape_decisions + self.texture_decisions + self.other_decisions


@dataclass(frozen=True)
class CueConflict:
    """Shape against texture, for one model or two."""

    model: ShapeBias  # the model that is judged
    against: ShapeBias | None = None  # the model compared with
    change: Change | None = None  # of the shape bias, over the same stimuli
    unreadable: dict[str, str] = field(default_factory=dict)  # stimulus -> why it was skipped

    @property
    def shape_bias(self) -> Compared:
        """In [0, 1]."""
        return Compared(
            self.model.shape_bias, of(self.against, lambda found: found.shape_bias), self.change
        )


# --- what results.json and audit.json hold ------------------------------------------------------


@dataclass(frozen=True)
class SuiteEntry:
    """All that was measured on one test set."""

    kind: Literal["classification", "segmentation", "cue conflict"]  # what was asked
    n: int  # images that count
    protocols: dict[str, Classification] = field(default_factory=dict)  # name -> answers
    masked: int | None = None  # images whose masks were used
    maps: dict[str, Compared] = field(default_factory=dict)  # score, such as "miou" -> in [0, 1]
    shifts: dict[str, ShiftEntry] = field(default_factory=dict)  # kind -> answers
    background: Background | None = None  # where mixed-same and mixed-rand were measured
    cues: CueConflict | None = None  # of a cue-conflict set
    scale: str = ""  # protocol of the maps; empty without maps, and as earlier versions wrote it

    @property
    def first(self) -> Classification:
        """The answers under the first protocol, of a classification set."""
        return next(iter(self.protocols.values()))

    @property
    def unreadable(self) -> dict[str, str]:
        """Image -> why it was skipped, of those that the model was asked about."""
        if self.cues:
            return self.cues.unreadable
        return self.first.unreadable if self.protocols else {}


@dataclass(frozen=True)
class Evaluation:
    """What `results.json` of `refocus evaluate` holds."""

    model: str  # as given; folders by their full path
    against: str | None  # the model compared with, likewise
    seed: int  # of intervals and shifts
    suites: dict[str, SuiteEntry]  # name -> what was measured on it
    schema: int = SCHEMA  # version of this file
    precision: Literal["fp32", "bf16"] = "fp32"  # number format that the models answered in


@dataclass(frozen=True)
class ClassReliance:
    """How much the answers on one class rely on the background."""

    name: str  # of the class folder
    n: int  # images
    plain: float  # top-1 on the images as they are, percent
    mixed_same: float  # top-1 on backgrounds of the same class, percent
    mixed_rand: float  # top-1 on backgrounds of other classes, percent
    bg_gap: Estimate  # mixed-same minus mixed-rand, points
    background_share: float | None  # mean share of the relevance on the background, in [0, 1]


@dataclass(frozen=True)
class WorstImage:
    """An image whose confidence falls on an other-class background."""

    image: str  # path below the folder of images
    fall: float  # of the true class's share when the background becomes another class's
    right: bool  # is the answer still right then?


@dataclass(frozen=True)
class Audit:
    """What `audit.json` of `refocus audit` holds."""

    model: str  # as given
    images: str  # folder of images
    masks: str  # folder of masks, or how they were found
    automatic: bool  # were the masks found without annotation?
    seed: int  # of intervals and swapped backgrounds
    verdict: str  # one sentence
    entry: SuiteEntry  # all that was measured
    classes: tuple[ClassReliance, ...]  # largest gap first
    worst_images: tuple[WorstImage, ...]  # greatest fall first
    schema: int = SCHEMA  # version of this file
    precision: Literal["fp32", "bf16"] = "fp32"  # number format that the model answered in


_A = TypeVar("_A")
_B = TypeVar("_B")


def of(found: _A | None, part: Callable[[_A], _B]) -> _B | None:
    """A part of a result where there is one."""
    return None if found is None else part(found)
