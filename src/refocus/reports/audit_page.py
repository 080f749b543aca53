"""The page of an audit: its numbers, its worst classes, and pictures of its worst images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from refocus.data import shifts
from refocus.data.images import mask_of, read_image
from refocus.figures import charts
from refocus.figures.glossary import words
from refocus.figures.html import page
from refocus.figures.tables import KeyNumber, Row, accuracy_rows, between, other_rows
from refocus.intervals import FEW
from refocus.progress import track
from refocus.records import Sample
from refocus.reports import gallery
from refocus.reports.strips import Scene, plain_rows, strips
from refocus.results import Audit, ClassReliance, Compared, Estimate, SuiteEntry, WorstImage
from refocus.vit.classes import class_count, class_folder_names

SUITE = "images"  # name of an audit's one test set
_WORDS = (
    "accuracy (top-1)",
    "own-class background",
    "other-class background",
    "BG-gap",
    "relevance",
    "relevance on the background",
    "mask",
    "confidence",
    "95 % interval",
    "always the same answer",
    "calibration error",
)


def audit_page(
    audit: Audit,
    model: nn.Module,
    samples: list[Sample],
    folder: Path,
    backgrounds: str | Path | None = None,
) -> str:
    """HTML; `samples` are the images with masks, `folder` is the audit's own, with its records.

    backgrounds: folder for the shift `real`, where the audit has it.
    """
    entry = audit.entry
    accuracies = accuracy_rows({SUITE: entry})
    root = Path(audit.images).expanduser()
    records = folder / "records" / SUITE
    grounds = None if backgrounds is None else str(backgrounds)
    scene = Scene(records, entry, samples, root, {"": model}, audit.seed, grounds)
    decided = [row for row in audit.classes if _decided(row)]
    return page(
        "audit.html.j2",
        audit=audit,
        entry=entry,
        numbers=key_numbers(entry, class_count(model)),
        relies=relies(entry),
        notes=notes(entry),
        chart=charts.accuracies(plain_rows(accuracies, [SUITE]), ("", "")),
        strips=strips(scene),
        accuracies=accuracies,
        others=other_rows({SUITE: entry}),
        decided=[_ClassRow(row) for row in decided],
        classes=[_ClassRow(row) for row in audit.classes],
        cards=cards(model, samples, audit.worst_images, root, audit.seed),
        words=words(*_WORDS),
        tile_columns=6,
    )


def _decided(row: ClassReliance) -> bool:
    """Whether the interval of a class's gap, as it is shown, lies above 0."""
    return row.bg_gap.interval is not None and round(row.bg_gap.interval[0]) > 0


@dataclass(frozen=True)
class _ClassRow:
    """A row of the table of classes, ready to be written."""

    numbers: ClassReliance

    @property
    def interval_text(self) -> str:
        return between(self.numbers.bg_gap.interval, 0)


def relies(entry: SuiteEntry) -> bool:
    """Whether the BG-gap shows that answers rely on the background."""
    assert entry.background is not None  # an audit swaps backgrounds
    found = entry.background.model
    gap = found.bg_gap.interval
    return gap is not None and gap[0] > 0 and found.bg_gap_p < 0.05


def key_numbers(entry: SuiteEntry, classes: int) -> list[KeyNumber]:
    """The three numbers on top of the page; classes: outputs of the model."""
    assert entry.background is not None  # an audit swaps backgrounds
    found, only_bg = entry.background.model, entry.shifts["only-bg"].top1
    gap = Row("", "", Compared(found.bg_gap))
    alone = Row("", "", only_bg)
    share = entry.maps.get("background_share", Compared(Estimate(None, None, 0)))
    outside = Row("", "", share, digits=2)
    of = f"({_percent(found.mixed_same)} minus {_percent(found.mixed_rand)})"
    return [
        KeyNumber(
            f"{gap.value_text} points",
            f"BG-gap: accuracy on own-class backgrounds minus that on other-class backgrounds {of}",
            f"95 %: {gap.interval_text}",
        ),
        KeyNumber(
            f"{alone.value_text} %",
            "accuracy when the model sees only the background",
            f"95 %: {alone.interval_text}; a random guess among its {classes} classes: "
            f"{100 / classes:.1f} %",
        ),
        KeyNumber(
            outside.value_text,
            "of the model's relevance lies on the background (1 is all of it)",
            f"95 %: {outside.interval_text}",
        ),
    ]


def _percent(number: Estimate) -> str:
    return "-" if number.value is None else f"{number.value:.1f} %"


def notes(entry: SuiteEntry) -> list[str]:
    """What a reader needs to know to read these numbers."""
    assert entry.background is not None
    gap = entry.background.model.bg_gap
    found = []
    if gap.value is not None and gap.value < 0:
        found.append(
            "The BG-gap is below 0: the model was right more often on other classes' backgrounds "
            "than on those of the object's own class. With an interval that contains 0 this may "
            "be chance. It is also expected where the images' own backgrounds do not belong to "
            "their class, as in a test set with shuffled backgrounds; audit images from "
            "where the model will be used instead."
        )
    if entry.masked is not None and entry.masked < FEW:
        found.append(f"Only {entry.masked} images: all intervals are wide.")
    return found


def cards(
    model: nn.Module,
    samples: list[Sample],
    worst: tuple[WorstImage, ...],
    root: Path,
    seed: int,
) -> list[gallery.Card]:
    """Each image as it is, and on the backgrounds of its own and of another class.

    Args:
        model: whose answers and maps are shown.
        samples: all images with masks, from which backgrounds are drawn as in the audit.
        worst: those to show.
        root: the folder that their names start from.
        seed: of the audit.
    """
    folders = class_folder_names(model)
    (same, _), (rand, _) = (
        shifts.shifts(samples, kind, seed)[0] for kind in ("mixed-same", "mixed-rand")
    )
    by_name = {s.image.relative_to(root).as_posix(): s for s in samples}
    found = []
    for row in track(worst, "pictures of the worst images"):
        sample = by_name[row.image]
        assert sample.mask is not None
        image = read_image(sample.image)
        mask, labels = mask_of(sample, image), [sample.label]
        shown = gallery.tiles({"unchanged": model}, image, mask, labels)
        own = gallery.tiles({"own-class background": model}, same(sample), mask, labels)
        other = gallery.tiles({"its map": model}, rand(sample), mask, labels)
        seen = replace(other[0], title="other-class background", caption="what the model then sees")
        found.append(
            gallery.Card(row.image, folders[sample.label], [*shown, own[-1], seen, other[-1]])
        )
    return found
