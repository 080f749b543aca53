"""The pictures of the studies: images chosen by rule, with the map before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from refocus.data.images import read_image
from refocus.evaluation.metrics import group_differences, paired
from refocus.records import Prediction, Sample
from refocus.reports import gallery
from refocus.studies.jobs import Job, named, pooled
from refocus.studies.order import Order
from refocus.studies.page import Pictures
from refocus.studies.registry import ORIGINAL, PUBLISHED
from refocus.vit.classes import class_folder_names
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
    """What a pair answered on a suite, all levels together."""

    before: list[Prediction]
    after: list[Prediction]
    samples: dict[str, Sample]  # by the images' names in the predictions


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
        found.append(Pair(model, networks, class_folder_names(tuned)))
    return found


def _answered(order: Order, pair: Pair, suite: str) -> Answered:
    before = order.answers(Job(pair.name, ORIGINAL), suite)
    after = order.answers(order.runs(pair.name, PUBLISHED)[0], suite)
    samples = {
        named(level, s.image.relative_to(tests.root).as_posix()): s
        for level, tests in order.ground.tests(suite, pair.networks["tuned"]).items()
        for s in tests.samples
    }
    return Answered(pooled(before), pooled(after), samples)


def _cards(pair: Pair, answered: Answered, images: Sequence[str]) -> tuple[gallery.Card, ...]:
    cards = []
    for image in images:
        sample = answered.samples[image]
        tiles = gallery.tiles(pair.networks, read_image(sample.image), None, [sample.label] * 2)
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
                cards = _cards(pair, found, group.shown[skipped:])
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
                cards = _cards(pair, found, spoiled[:SPOILED])
                rule = f"the first {SPOILED} in the listing"
                groups.append(Pictures(title, rule, len(spoiled), cards))
    return tuple(groups)
