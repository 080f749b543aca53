"""The pictures of the studies: images chosen by rule, with the map before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from refocus.data.transforms import scale_of
from refocus.evaluation.metrics import group_differences, paired
from refocus.evaluation.suites import TestSet
from refocus.figures.pictures import to_picture
from refocus.records import Prediction, Sample
from refocus.reports import gallery
from refocus.studies.jobs import Job, named, pooled
from refocus.studies.order import Order
from refocus.studies.page import Pictures
from refocus.studies.registry import ORIGINAL, PUBLISHED
from refocus.vit.classes import brief_names
from refocus.vit.loading import load

SHOWN = 4  # images of an outcome
WORST, SPOILED = 2, 3  # classes and images of each, figure 15


@dataclass(frozen=True)
class Pair:
    """A model before and after tuning."""

    name: str
    networks: dict[str, nn.Module]
    names: list[str]  # of the classes


@dataclass(frozen=True)
class Answered:
    """What a pair answered on a suite, all levels together.

    shown: image, as the predictions name it -> its sample, and the test set that reads it.
    """

    before: list[Prediction]
    after: list[Prediction]
    shown: dict[str, tuple[Sample, TestSet]]


def _pairs(order: Order) -> list[Pair]:
    found = []
    for model in order.models:
        tuned = load(
            order.runs(model, PUBLISHED)[0].folder(order.out) / "model", device=order.device
        )
        networks = {
            "original": load(order.ground.models[model], device=order.device),
            "tuned": tuned,
        }
        found.append(Pair(model, networks, brief_names(tuned)))
    return found


def _answered(order: Order, pair: Pair, suite: str) -> Answered:
    before = order.answers(Job(pair.name, ORIGINAL), suite)
    after = order.answers(order.runs(pair.name, PUBLISHED)[0], suite)
    shown = {
        named(level, s.image.relative_to(tests.root).as_posix()): (s, tests)
        for level, tests in order.ground.tests(suite, pair.networks["tuned"]).items()
        for s in tests.samples
    }
    return Answered(pooled(before), pooled(after), shown)


def _cards(
    order: Order, pair: Pair, found: Answered, images: Sequence[str]
) -> tuple[gallery.Card, ...]:
    """Of each image what the test set showed of it, and where both models looked.

    The answers are those of the records: a test set may have cut the image in another way than the
    model's own preprocessing does, and may take answers of some classes only.
    """
    scale = scale_of(pair.networks["tuned"], order.ground.protocol)
    by_image = [{p.image: p for p in some} for some in (found.before, found.after)]
    cards = []
    for image in images:
        sample, tests = found.shown[image]
        pixels = tests.transform(tests.read(sample))
        seen = pixels, to_picture(pixels, *scale)
        answers = [some[image] for some in by_image]
        tiles = gallery.answered(pair.networks, seen, answers, pair.names)
        cards.append(gallery.Card(image, pair.names[sample.label], tiles))
    return tuple(cards)


def galleries(order: Order) -> tuple[Pictures, ...]:
    """Figures 2, 3 and 6: corrected, spoiled and kept images with both maps."""
    groups, skipped = [], order.row.skips
    for pair in _pairs(order):
        for suite in order.suites:
            found = _answered(order, pair, suite)
            for group in gallery.outcomes(found.before, found.after, SHOWN + skipped):
                if group.title not in order.row.shows:
                    continue
                rule = group.rule + (f", without the first {skipped}" if skipped else "")
                title = f"{pair.name}, {suite}: {group.title.lower()}"
                cards = _cards(order, pair, found, group.shown[skipped:])
                groups.append(Pictures(title, rule, group.total, cards))
    return tuple(groups)


def worst(order: Order) -> tuple[Pictures, ...]:
    """Figure 15: of the classes that lose most the first images that were right and are wrong."""
    groups = []
    for pair in _pairs(order):
        for suite in order.suites:
            found = _answered(order, pair, suite)
            changes = group_differences(
                found.after,
                found.before,
                lambda p, names=pair.names: names[p.label],  # type: ignore[misc]
            )
            for row in [r for r in reversed(changes) if r.gain < 0][:WORST]:
                spoiled = [
                    old.image
                    for new, old in paired(found.after, found.before)
                    if pair.names[old.label] == row.name and old.right and not new.right
                ]
                title = f"{pair.name}, {suite}: {row.name}, spoiled"
                cards = _cards(order, pair, found, spoiled[:SPOILED])
                rule = f"the first {SPOILED} in the listing"
                groups.append(Pictures(title, rule, len(spoiled), cards))
    return tuple(groups)
