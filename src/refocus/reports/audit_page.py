"""The page of an audit: its numbers, its worst classes, and pictures of its worst images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from refocus.data import shifts
from refocus.data.images import mask_of, read_image
from refocus.figures import charts
from refocus.figures.html import page
from refocus.figures.tables import Row, accuracy_rows, between, other_rows
from refocus.records import Sample
from refocus.reports import gallery
from refocus.results import Audit, ClassReliance, Compared, Estimate, SuiteEntry, WorstImage
from refocus.vit.classes import class_folder_names

_CLASSES = 15  # shown on the page; audit.json has all


def audit_page(audit: Audit, model: nn.Module, samples: list[Sample], root: Path) -> str:
    """HTML; `samples` are the images with masks, `root` the folder that their names start from."""
    entry = audit.entry
    accuracies = accuracy_rows({"images": entry})
    return page(
        "audit.html.j2",
        audit=audit,
        entry=entry,
        numbers=_numbers(entry),
        chart=charts.accuracies(accuracies, ("", "")),
        accuracies=accuracies,
        others=other_rows({"images": entry}),
        classes=[_ClassRow(row) for row in audit.classes[:_CLASSES]],
        cards=_cards(model, samples, audit.worst_images, root, audit.seed),
        tile_columns=6,
    )


@dataclass(frozen=True)
class _ClassRow:
    """A row of the table of classes, ready to be written."""

    numbers: ClassReliance

    @property
    def interval_text(self) -> str:
        return between(self.numbers.bg_gap.interval, 0)


def _numbers(entry: SuiteEntry) -> list[Row]:
    """The four numbers on top of the page."""
    assert entry.background is not None  # an audit swaps backgrounds
    found, only_bg = entry.background.model, entry.shifts["only-bg"]
    share = entry.maps.get("background_share", Compared(Estimate(None, None, 0)))
    numbers = {
        "BG-gap: top-1 lost with another class's background, points": (found.bg_gap, 1),
        "confidence in the true class lost by that swap": (found.confidence_change.negative, 2),
        f"top-1 from the background alone, % (chance {only_bg.chance:.1f})": (
            only_bg.top1.model,
            1,
        ),
        "share of relevance on the background": (share.model, 2),
    }
    return [
        Row("", title, Compared(number), digits=digits)
        for title, (number, digits) in numbers.items()
    ]


def _cards(
    model: nn.Module,
    samples: list[Sample],
    worst: tuple[WorstImage, ...],
    root: Path,
    seed: int,
) -> list[gallery.Card]:
    folders = class_folder_names(model)
    (same, _), (rand, _) = (
        shifts.shifts(samples, kind, seed)[0] for kind in ("mixed-same", "mixed-rand")
    )
    by_name = {s.image.relative_to(root).as_posix(): s for s in samples}
    cards = []
    for row in worst:
        sample = by_name[row.image]
        assert sample.mask is not None
        image = read_image(sample.image)
        mask, labels = mask_of(sample, image), [sample.label]
        shown = gallery.tiles({"as it is": model}, image, mask, labels)
        own = gallery.tiles({"own class's background": model}, same(sample), mask, labels)
        other = gallery.tiles({"other class's background": model}, rand(sample), mask, labels)
        seen = replace(other[0], title="swapped", caption="what it then sees")
        cards.append(
            gallery.Card(row.image, folders[sample.label], [*shown, own[-1], seen, other[-1]])
        )
    return cards
