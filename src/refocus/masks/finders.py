"""The two ways to masks: found in the images, or read from a format that people have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from refocus import fingerprints
from refocus.data.folders import image_files
from refocus.data.images import read_image
from refocus.data.sources.opened import opened
from refocus.errors import InputError
from refocus.files import replacing
from refocus.masks.backbones import Pixels, Reader, keys_of, load_backbone
from refocus.masks.discovery import (
    ObjectHead,
    cut,
    learn_head,
    object_mask,
    overlap,
    shipped_head,
)
from refocus.masks.formats import reader
from refocus.masks.reading import MaskReader
from refocus.masks.settings import ASK, MaskSettings
from refocus.masks.takeover import mask_for, refuse_open_questions
from refocus.progress import track
from refocus.vit.loading import identity, pick_device

HEAD = "head.npy"  # in a folder of masks, of the objects of its images
_LEARN_FROM = 300  # images for the head of a folder (docs/masks.md)


@dataclass(frozen=True)
class Outcome:
    """What became of one image: a mask, or why there is none.

    The mask is 0/255, of the image's size, with what `quality.assess` compares.
    """

    image: Path
    mask: Image.Image | None = None
    agreement: float | None = None
    edges: float | None = None
    problem: str = ""


Find = Callable[[list[Path]], Iterator[Outcome]]
MakeFind = Callable[[list[Path], Path], Find]  # from all files and the output folder


class _Decoded(Dataset[tuple[Path, "Pixels | InputError"]]):
    def __init__(self, files: list[Path], reader: Reader) -> None:
        self.files, self.reader = files, reader

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> tuple[Path, Pixels | InputError]:
        try:
            return self.files[position], self.reader(read_image(self.files[position]))
        except InputError as error:
            return self.files[position], error


def _pixels(
    files: list[Path], reader: Reader, workers: int
) -> Iterable[tuple[Path, Pixels | InputError]]:
    """One image at a time, decoded ahead by `workers` processes.

    Memory does not grow with the number of files.
    """
    return DataLoader(_Decoded(files, reader), batch_size=None, num_workers=workers)


# --- masks that people have -----------------------------------------------------------------------


def taken_over(images: Path, settings: MaskSettings) -> tuple[MakeFind, dict[str, Any]]:
    """The finder that reads masks of another format, and what decides its masks."""
    assert settings.source is not None
    kind, path = settings.source
    source = Path(path).expanduser().resolve()
    files = image_files(images.resolve())  # as `write` will name them
    read = reader(kind, Path(path), settings.ignore, images=files, boxes=settings.boxes)
    answers = {"frame": settings.orientation, "mask_polarity": settings.mask_polarity}
    refuse_open_questions(read, files, **answers)
    kept = {
        "from": [kind, str(source), fingerprints.of_tree(source)],
        "ignore": settings.ignore,
        "orientation": settings.orientation,
        **({} if settings.boxes == ASK else {"boxes": settings.boxes}),
        "mask_polarity": settings.mask_polarity,
    }
    return lambda _files, _out: imported(read, **answers), kept


def imported(read: MaskReader, *, frame: str = ASK, mask_polarity: str = ASK) -> Find:
    """Take masks from a reader of `formats`."""

    def find(files: list[Path]) -> Iterator[Outcome]:
        for file in files:
            try:
                mask = mask_for(read, file, frame=frame, mask_polarity=mask_polarity)
            except InputError as error:
                yield Outcome(file, problem=str(error))
            else:
                yield Outcome(file, Image.fromarray(mask.astype(np.uint8) * 255))

    return find


# --- masks that are found -------------------------------------------------------------------------


def by_backbone(images: Path, settings: MaskSettings) -> tuple[MakeFind, dict[str, Any]]:
    """The finder that looks for objects, and what decides its masks."""
    image_files(images)  # a wrong folder is said before a backbone is fetched
    shown = opened(settings.learn_from, "learn_from").images if settings.learn_from else None
    teachers = image_files(shown, "learn_from") if shown else None
    carried = None if teachers else shipped_head(settings.backbone)
    network = load_backbone(settings.backbone).to(pick_device(settings.device))
    size, refine, workers = settings.size, settings.refine, settings.workers

    def make(files: list[Path], out: Path) -> Find:
        head = carried or kept_head(out, network, teachers or files, size=size, workers=workers)
        return discovered(network, head, size=size, refine=refine, workers=workers)

    kept = {
        "backbone": identity(settings.backbone, network),
        "size": size,
        "refine": refine,
        "learn_from": shown and str(shown.resolve()),
        # of the package, which may change
        "head": carried and blake2b(carried.weights.tobytes(), digest_size=8).hexdigest(),
    }
    return make, kept


def discovered(
    backbone: nn.Module, head: ObjectHead, *, size: int, refine: str = "bilateral", workers: int = 0
) -> Find:
    """Find masks by the head; the image's own cut is the second source."""

    def find(files: list[Path]) -> Iterator[Outcome]:
        for file, pixels in _pixels(files, Reader(backbone, size), workers):
            if isinstance(pixels, InputError):
                yield Outcome(file, problem=str(pixels))
                continue
            keys = keys_of(backbone, pixels)
            common, own = head(keys), cut(keys)
            mask, edges = object_mask(common, pixels, refine=refine)
            yield Outcome(file, mask, overlap(common > 0.5, own > 0.5), edges)

    return find


def kept_head(
    folder: Path, backbone: nn.Module, files: list[Path], *, size: int, workers: int
) -> ObjectHead:
    """The head kept in a mask folder, learned from `files` where there is none yet."""
    path = folder / HEAD
    if not path.exists():
        head = learn(backbone, files, size=size, workers=workers)
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, head.weights)
    return ObjectHead(np.load(path, allow_pickle=False))


def learn(backbone: nn.Module, files: list[Path], *, size: int, workers: int = 0) -> ObjectHead:
    """Learn the head of a folder from at most 300 of its images.

    Evenly spaced in the listing and so over its classes.
    """
    chosen = [
        files[i] for i in np.linspace(0, len(files) - 1, min(_LEARN_FROM, len(files))).astype(int)
    ]
    pixels = _pixels(chosen, Reader(backbone, size), workers)
    with_bar = track(pixels, "what the objects share", len(chosen))
    return learn_head(keys_of(backbone, p) for _, p in with_bar if isinstance(p, Pixels))
