"""Appendix A: the subsets of pixels that suffice for a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from refocus.data.transforms import scale_of
from refocus.evaluation.suites import TestSet
from refocus.figures import html
from refocus.figures.pictures import to_picture
from refocus.probes.tools.subsets import CONFIDENCE, sufficient_subsets
from refocus.probes.tools.subsets import Subsets as Found
from refocus.records import Sample
from refocus.relevance.answers import logits_of
from refocus.reports import gallery
from refocus.studies.datasets import Ground
from refocus.studies.page import Pictures
from refocus.studies.results import Subset, Subsets
from refocus.vit.classes import brief_names
from refocus.vit.families import view
from refocus.vit.loading import load

IMAGES, LABELS = 4, 5  # images, and random classes that each is asked about
ROUNDS = 100  # of removing pixels


@dataclass(frozen=True)
class Asked:
    """One model, the images and the random classes that it is asked about."""

    network: nn.Module
    tests: TestSet
    names: list[str]
    samples: tuple[Sample, ...]
    others: tuple[int, ...]  # labels
    scale: tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel


def subset_study(
    ground: Ground,
    model: str,
    device: torch.device,
    *,
    suites: Sequence[str] = (),
    images: int = IMAGES,
    labels: int = LABELS,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> tuple[Subsets, tuple[Pictures, ...]]:
    """Sufficient subsets of random test images: numbers, and pictures.

    For the predicted class and for random others. suites: those of the study, which asks about one
    of them; without any, all of the ground.
    """
    network = load(ground.models[model], device=device)
    tests = _tests(ground, network, suites or tuple(ground.suites))
    asked = _draw(ground, network, tests, (images, labels), seed)
    rows: list[Subset] = []
    cards = []
    for sample in asked.samples:
        some, card = _one_image(asked, sample, rounds)
        rows += some
        cards.append(card)
    shown = Pictures(f"{model}: subsets that suffice", "drawn at random", len(cards), tuple(cards))
    return _numbers(model, rows), (shown,)


def _tests(ground: Ground, network: nn.Module, suites: Sequence[str]) -> TestSet:
    suite = "imagenet" if "imagenet" in suites else suites[0]
    return next(iter(ground.tests(suite, network).values()))


def _draw(
    ground: Ground, network: nn.Module, tests: TestSet, counts: tuple[int, int], seed: int
) -> Asked:
    """counts: of images and of random classes."""
    view(network)
    images, labels = counts
    names = brief_names(network)
    rng = np.random.default_rng(seed)
    count = len(tests.samples)
    picked = rng.choice(count, min(images, count), replace=False)
    others = rng.choice(len(names), min(labels, len(names)), replace=False)
    return Asked(
        network,
        tests,
        names,
        tuple(tests.samples[i] for i in picked),
        tuple(others.tolist()),
        scale_of(network, ground.protocol),
    )


def _one_image(asked: Asked, sample: Sample, rounds: int) -> tuple[list[Subset], gallery.Card]:
    network, names = asked.network, asked.names
    device = next(network.parameters()).device
    pixels = asked.tests.transform(asked.tests.read(sample)).to(device)
    with torch.inference_mode():
        predicted = int(logits_of(network, pixels[None]).argmax())
    targets = torch.tensor([predicted, *asked.others], device=device)
    found = sufficient_subsets(
        network, pixels[None].repeat(len(targets), 1, 1, 1), targets, rounds=rounds
    )
    picture = to_picture(pixels.cpu(), *asked.scale)
    rows = []
    tiles = [gallery.Tile(html.tile_uri(picture), "image", names[sample.label])]
    for position, target in enumerate(targets.tolist()):
        row = _row(sample, names[target], target == predicted, found, position)
        kept = found.pixels[position].numpy()[..., None]
        shown = html.tile_uri(np.where(kept, picture, 255).astype(np.uint8))
        tiles.append(gallery.Tile(shown, row.target, _caption(row)))
        rows.append(row)
    return rows, gallery.Card(sample.image.name, names[sample.label], tiles)


def _row(sample: Sample, target: str, predicted: bool, subsets: Found, position: int) -> Subset:
    ok = bool(subsets.found[position])
    return Subset(
        sample.image.name,
        target,
        predicted,
        ok,
        float(subsets.share[position]) if ok else None,
        float(subsets.confidence[position]) if ok else None,
    )


def _caption(row: Subset) -> str:
    if row.share is None or row.confidence is None:
        return "none found"
    return f"{row.confidence:.1%} from {row.share:.1%} of the pixels"


def _numbers(model: str, rows: Sequence[Subset]) -> Subsets:
    foreign = [r for r in rows if not r.predicted]
    shares = [r.share for r in foreign if r.share is not None]
    return Subsets(
        model,
        len(foreign),
        100 * len(shares) / len(foreign) if foreign else None,
        float(np.median(shares)) if shares else None,
        CONFIDENCE,
        tuple(rows),
    )


def summary(numbers: Subsets) -> str:
    """What was found, in one sentence."""
    if numbers.reached is None:
        return f"{numbers.model}: every class that was drawn is the predicted one.\n"
    text = (
        f"{numbers.model}: {numbers.pairs} pairs of an image and a random class; a subset above "
        f"{numbers.confidence:.0%} confidence was found for {numbers.reached:.0f} %"
    )
    if numbers.median_share is None:
        return f"{text}.\n"
    return f"{text}, at the median from {numbers.median_share:.1%} of the pixels.\n"
