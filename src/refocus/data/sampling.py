"""Which images a run takes.

The few shots, the images it validates on, a sample spread over the classes.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from refocus.data.images import mask_of, read_image
from refocus.errors import InputError, Message
from refocus.progress import track
from refocus.records import Sample

log = logging.getLogger("refocus")


class TooFewError(InputError):
    """A class has fewer usable images than are wanted of each."""

    def __init__(self, few: str, name: str, found: int, wanted: int) -> None:
        super().__init__(
            f"{few}; lower it, add images, or use all that such a class has with ‹fewer›"
        )
        self.name, self.found, self.wanted = name, found, wanted

    def __reduce__(self) -> tuple[type[InputError], tuple[str]]:
        return InputError, (self.marked,)


def usable(
    samples: list[Sample], count: int, *, skip_bad: bool, shown: bool = True
) -> list[Sample]:
    """The first `count` samples whose image and mask can be used together.

    shown: with a progress bar.

    Raises:
        InputError: the first one that cannot, unless `skip_bad`; then it is named in the log and
            left out.
    """
    chosen: list[Sample] = []
    most = min(count, len(samples))
    for sample in track(samples, "reading images and masks", most, shown=shown):
        if len(chosen) == count:
            break
        try:
            if sample.mask is None:
                raise InputError(
                    f"{sample.image}: image without a mask (expected "
                    f"{sample.image.parent.name}/{sample.image.stem}.png)"
                )
            mask_of(sample, read_image(sample.image))
        except InputError as error:
            if not skip_bad:
                raise InputError(
                    f"{error.marked}; fix it, or leave such images out with ‹skip_bad›"
                ) from error
            log.warning("left out: %s", error)
            continue
        chosen.append(sample)
    return chosen


def pick_classes(samples: list[Sample], count: int | None, class_seed: int | None) -> list[int]:
    """Labels to train on: the first `count` in listing order, or shuffled by `class_seed`.

    None: half of them.
    """
    labels = list(
        dict.fromkeys(s.label for s in samples)
    )  # listing order, as the paper takes "the first 500"
    count = max(1, len(labels) // 2) if count is None else count
    if count > len(labels):
        raise InputError(f"‹classes› {count}: the image folder has only {len(labels)} classes")
    if class_seed is not None:
        labels = [
            labels[i]
            for i in torch.randperm(
                len(labels), generator=torch.Generator().manual_seed(class_seed)
            )
        ]
    return labels[:count]


def pick_shots(
    samples: list[Sample],
    labels: list[int],
    shots: int,
    seed: int,
    *,
    skip_bad: bool,
    fewer: bool = False,
    shown: bool = True,
) -> list[Sample]:
    """`shots` usable samples of each label, drawn by `seed`.

    fewer: all of a label that has less (one at least). shown: with a progress bar.
    """
    of_label: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        of_label[sample.label].append(sample)
    chosen = []
    for label in labels:
        mine = shuffled(of_label[label], seed)
        found = usable(mine, shots, skip_bad=skip_bad, shown=shown)
        if len(found) < shots:
            name = mine[0].image.parent.name
            few = f"‹shots› {shots}: class {name!r} has only {len(found)} usable images"
            if not found or not fewer:
                raise TooFewError(few, name, len(found), shots)
            log.info(Message(f"{few}; all of them are taken"))
        chosen += found
    return chosen


def spread(
    samples: list[Sample], count: int, seed: int, *, skip_bad: bool, shown: bool = True
) -> list[Sample]:
    """At most `count` usable samples, spread over their classes.

    The first of each class, then the second of each, ... shown: with a progress bar.
    """
    turn: Counter[int] = Counter()
    keyed = []
    for position, sample in enumerate(shuffled(samples, seed)):
        keyed.append((turn[sample.label], position, sample))
        turn[sample.label] += 1
    ordered = [s for _, _, s in sorted(keyed, key=lambda k: k[:2])]
    return usable(ordered, count, skip_bad=skip_bad, shown=shown)


def shuffled(samples: list[Sample], seed: int) -> list[Sample]:
    """The samples in an order that follows from the seed alone."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return [samples[i] for i in order]


def chosen(samples: Sequence[Sample], most: int | None, seed: int) -> frozenset[Path]:
    """At most `most` images, spread over the classes.

    One of each class in random order, then a second of each, ...
    """
    if most is None or len(samples) <= most:
        return frozenset(s.image for s in samples)
    of_class: dict[
        str, list[Path]
    ] = {}  # by folder, so that models with another order of classes get the same images
    for sample in samples:
        of_class.setdefault(sample.image.parent.name, []).append(sample.image)
    rng = np.random.default_rng(seed)
    columns = [[some[i] for i in rng.permutation(len(some))] for some in of_class.values()]
    columns = [columns[i] for i in rng.permutation(len(columns))]
    turns = [image for turn in zip_longest(*columns) for image in turn if image is not None]
    return frozenset(turns[:most])
