"""How refocus understands a model, a folder of images and their masks, before an hour is spent."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from refocus.data.folders import class_folders, scan
from refocus.data.images import mask_of, orientation, read_image
from refocus.data.polarity import frame_share
from refocus.data.sources.opened import opened_pair
from refocus.errors import InputError
from refocus.figures.html import page
from refocus.files import write_text
from refocus.masks.sheet import tile
from refocus.records import Sample
from refocus.vit.classes import class_count, folder_names
from refocus.vit.loading import preprocessing

_SHOWN = 10  # thumbnails
_LOOKED_AT = 200  # images with their masks that are read, evenly spaced in the listing


@dataclass(frozen=True)
class ClassFound:
    """A class folder: the output it means, its images, and how many of them have a mask.

    Masks that were looked at and cannot be used do not count.
    """

    folder: str
    output: int
    images: int
    masks: int


@dataclass(frozen=True)
class Coverage:
    """Of the masks looked at: share of the image that is object, in percent, and of its border."""

    looked_at: int
    object: tuple[float, float, float]  # 10 %, median, 90 %
    border: float  # median


@dataclass(frozen=True)
class Checked:
    """What `check` found.

    outputs: of the model. pixels: its input as width, height. notices: what was passed over or
    taken for granted. turned: images looked at that EXIF turns. problems: file by file, why an
    image or a mask cannot be used.
    """

    outputs: int
    pixels: tuple[int, int]
    classes: tuple[ClassFound, ...]
    notices: tuple[str, ...]
    turned: int
    coverage: Coverage | None
    problems: tuple[str, ...]
    samples: tuple[Sample, ...]  # those shown


def check(
    model: nn.Module,
    images: str | Path,
    masks: str | Path | None = None,
    *,
    mask_polarity: str = "ask",
) -> Checked:
    """Read a model's classes, a folder and some of its images and masks as every command would.

    Args:
        model: a loaded classifier.
        images: its ImageFolder, CLASS/FILE.
        masks: their masks, CLASS/STEM.png.
        mask_polarity: "ask", "keep" or "invert".

    Raises:
        InputError: what every command would refuse, or none of the masks looked at can be used.
    """
    with _heard() as notices:
        found = opened_pair(images, masks)
        images, masks = found.images, found.masks
        samples = scan(images, model, masks=masks, mask_polarity=mask_polarity)
    if masks is not None and not any(sample.mask for sample in samples):
        raise InputError(f"‹masks› {masks}: holds no mask for any of the images")
    places = np.linspace(0, len(samples) - 1, min(_LOOKED_AT, len(samples))).astype(int)
    some = [samples[i] for i in places]
    looked = _looked_at(some)
    if looked.masks and not looked.shares:
        raise InputError(
            f"‹masks› {masks}: none of the {len(looked.masks)} masks that were examined can be "
            f"used; the first: {next(iter(looked.masks.values()))}"
        )
    good = looked.good
    height, width = preprocessing(model)["input_size"][1:]
    shown = np.linspace(0, max(len(good) - 1, 0), min(_SHOWN, len(good))).astype(int)
    return Checked(
        class_count(model),
        (width, height),
        _classes(images, samples, looked.masks),
        tuple(notices),
        sum(orientation(s.image) != 1 for s in some),
        looked.coverage,
        tuple(looked.problems),
        tuple(good[i] for i in shown),
    )


@dataclass
class _Looked:
    """What was found in images and masks that were read; masks: image -> why its mask is none."""

    good: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    masks: dict[Path, str] = field(default_factory=dict)
    shares: list[float] = field(default_factory=list)  # of the image that is object, percent
    borders: list[float] = field(default_factory=list)  # of its border, likewise

    @property
    def coverage(self) -> Coverage | None:
        if not self.shares:
            return None
        low, middle, high = np.percentile(self.shares, (10, 50, 90)).tolist()
        return Coverage(len(self.shares), (low, middle, high), float(np.median(self.borders)))


def _looked_at(samples: list[Sample]) -> _Looked:
    found = _Looked()
    for sample in samples:
        try:
            picture = read_image(sample.image)
        except InputError as error:
            found.problems.append(str(error))
            continue
        try:
            if sample.mask is not None:
                mask = mask_of(sample, picture)[0].numpy()
                found.shares.append(100 * float(mask.mean()))
                found.borders.append(100 * frame_share(mask > 0.5))
            found.good.append(sample)
        except InputError as error:
            found.problems.append(str(error))
            found.masks[sample.image] = str(error)
    return found


def _classes(
    images: Path, samples: list[Sample], unusable: Container[Path]
) -> tuple[ClassFound, ...]:
    """unusable: images whose mask was looked at and cannot be used."""
    label = {s.image.parent.name: s.label for s in samples}
    masks = Counter(
        s.image.parent.name for s in samples if s.mask is not None and s.image not in unusable
    )
    found = [
        ClassFound(name, label[files[0].parent.name], len(files), masks[files[0].parent.name])
        for name, files in class_folders(images, "images").items()
    ]
    return tuple(sorted(found, key=lambda c: c.output))


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What refocus says meanwhile, each once; it is said as well."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() not in said:
                said.append(record.getMessage())

    log, listener = logging.getLogger("refocus"), Listener()
    level = log.level
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    try:
        yield said
    finally:
        log.removeHandler(listener)
        log.setLevel(level)


def write(checked: Checked, model: nn.Module, out: Path) -> None:
    """A page of what was found, with thumbnails: each image, and beside it what its mask keeps."""
    names = folder_names(model) or []
    tiles = [
        {"picture": tile(s), "title": f"{s.image.parent.name}/{s.image.name}",
         "output": f"{s.label}: {names[s.label]}"}
        for s in checked.samples
    ]  # fmt: skip
    write_text(out, page("check.html.j2", checked=checked, tiles=tiles))
