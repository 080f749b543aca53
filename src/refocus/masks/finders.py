"""The two ways to masks: found in the images, or read from a format that people have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
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
from refocus.masks.backends import table as backends
from refocus.masks.backends.ours import Ours
from refocus.masks.backends.protocol import Backend
from refocus.masks.choice import OURS
from refocus.masks.discovery import (
    ObjectHead,
    cut,
    learn_head,
    object_mask,
    overlap,
    shipped_head,
    spread,
)
from refocus.masks.formats import reader
from refocus.masks.reading import MaskReader
from refocus.masks.settings import ASK, MaskSettings
from refocus.masks.takeover import mask_for, refuse_open_questions
from refocus.processes import workers_for
from refocus.progress import track
from refocus.settings import settings_of
from refocus.vit.classes import readable
from refocus.vit.loading import identity, pick_device

HEAD = "head.npy"  # in a folder of masks, of the objects of its images
_LEARN_FROM = 300  # images for the head of a folder (docs/masks.md)
_EDGES_AT = 512  # pixels of the longer side at which a mask is compared with its image's edges

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What became of one image: a mask, or why there is none.

    The mask is 0/255, of the image's size, with what `quality.assess` compares.
    """

    image: Path
    mask: Image.Image | None = None
    agreement: float | None = None
    edges: float | None = None
    problem: str = ""  # marked, see `refocus.errors`


Find = Callable[[list[Path]], Iterator[Outcome]]
MakeFind = Callable[[list[Path], Path], Find]  # from all files and the output folder


class _Decoded(Dataset[tuple[Path, Any]]):
    def __init__(self, files: list[Path], reader: Callable[[Image.Image], Any]) -> None:
        self.files, self.reader = files, reader

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> tuple[Path, Any]:
        try:
            return self.files[position], self.reader(read_image(self.files[position]))
        except InputError as error:
            return self.files[position], error


def _as_it_is(image: Image.Image) -> Image.Image:
    return image


def _decoded(
    files: list[Path], reader: Callable[[Image.Image], T], workers: int
) -> Iterable[tuple[Path, T | InputError]]:
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
                yield Outcome(file, problem=error.marked)
            else:
                yield Outcome(file, Image.fromarray(mask.astype(np.uint8) * 255))

    return find


# --- masks that are found -------------------------------------------------------------------------


def by_backend(images: Path, settings: MaskSettings) -> tuple[MakeFind, dict[str, Any]]:
    """The finder that looks for objects, and what decides its masks."""
    image_files(images)  # a wrong folder is said before a model is fetched
    if settings.backend == OURS:
        return _by_ours(images, settings)
    chosen = backends.known(settings.backend, settings.device)
    if not chosen.by_ours:  # said before weights are fetched
        _refuse_unread(settings)
    own, by_ours = backends.made(chosen)
    kept = {"backend": [settings.backend, *backends.identity(chosen, own)]}
    workers, root = _workers(settings), images.resolve()
    if own is not None:
        return lambda _files, _out: seen(own, root, workers=workers), kept
    assert by_ours is not None
    network, head_for, decisive = _head(images, settings)
    size, refine = settings.size, settings.refine

    def make(files: list[Path], out: Path) -> Find:
        ours = Ours(network, head_for(files, out), size, refine)
        return seen(by_ours(ours), root, workers=workers)

    return make, {**kept, **decisive}


def _by_ours(images: Path, settings: MaskSettings) -> tuple[MakeFind, dict[str, Any]]:
    network, head_for, kept = _head(images, settings)
    how: dict[str, Any] = {
        "size": settings.size,
        "refine": settings.refine,
        "workers": _workers(settings),
    }
    return lambda files, out: discovered(network, head_for(files, out), **how), kept


def _head(
    images: Path, settings: MaskSettings
) -> tuple[nn.Module, Callable[[list[Path], Path], ObjectHead], dict[str, Any]]:
    """The backbone, how its head is had, and what decides the masks of both."""
    shown = opened(settings.learn_from, "learn_from").images if settings.learn_from else None
    teachers = image_files(shown, "learn_from") if shown else None
    carried = None if teachers else shipped_head(settings.backbone)
    network = load_backbone(settings.backbone).to(pick_device(settings.device))
    size, workers = settings.size, _workers(settings)

    def head_for(files: list[Path], out: Path) -> ObjectHead:
        return carried or kept_head(out, network, teachers or files, size=size, workers=workers)

    kept = {
        "backbone": identity(settings.backbone, network),
        "size": size,
        "refine": settings.refine,
        "learn_from": shown and str(shown.resolve()),
        # of the package, which may change
        "head": carried and blake2b(carried.weights.tobytes(), digest_size=8).hexdigest(),
    }
    return network, head_for, kept


def _workers(settings: MaskSettings) -> int:
    return workers_for(settings.workers, pick_device(settings.device).type)


def _refuse_unread(settings: MaskSettings) -> None:
    """Stop at what only our own masks read."""
    for known in settings_of(MaskSettings):
        value = getattr(settings, known.name)
        if known.name in ("backbone", "refine", "size", "learn_from") and value != known.default:
            raise InputError(
                f"‹{known.name}› {value}: only for our own masks, not for ‹backend="
                f"{settings.backend}›"
            )


def seen(backend: Backend, root: Path, *, workers: int = 0) -> Find:
    """Find masks by another backend; root: of the images, whose class folders name what they show.

    The second opinion is the backend's own, or else the same mask cut at 0.25 and at 0.75, which
    agree where the backend is sure (the stability of SAM's masks, Kirillov et al., ICCV 2023).
    """

    def find(files: list[Path]) -> Iterator[Outcome]:
        for file, image in _decoded(files, _as_it_is, workers):
            if isinstance(image, InputError):
                yield Outcome(file, problem=image.marked)
                continue
            try:
                found = backend(image, "" if file.parent == root else readable(file.parent.name))
            except InputError as error:
                yield Outcome(file, problem=f"{file}: {error.marked}")
                continue
            soft, other = found.soft, found.other
            agreement = overlap(soft > 0.25, soft > 0.75) if other is None else None
            if other is not None:
                agreement = overlap(soft > 0.5, other)
            small = image.copy()
            small.thumbnail((_EDGES_AT, _EDGES_AT))
            _, edges = object_mask(soft, Pixels(torch.empty(0), np.asarray(small), image.size))
            mask = Image.fromarray((soft > 0.5).astype(np.uint8) * 255)
            yield Outcome(file, mask, agreement, edges)

    return find


def discovered(
    backbone: nn.Module, head: ObjectHead, *, size: int, refine: str = "bilateral", workers: int = 0
) -> Find:
    """Find masks by the head; the image's own cut is the second source."""

    def find(files: list[Path]) -> Iterator[Outcome]:
        for file, pixels in _decoded(files, Reader(backbone, size), workers):
            if isinstance(pixels, InputError):
                yield Outcome(file, problem=pixels.marked)
                continue
            keys = keys_of(backbone, pixels)
            common, own = head(keys), cut(keys)
            mask, edges = object_mask(spread(common, keys), pixels, refine=refine)
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
    pixels = _decoded(chosen, Reader(backbone, size), workers)
    with_bar = track(pixels, "what the objects share", len(chosen))
    return learn_head(keys_of(backbone, p) for _, p in with_bar if isinstance(p, Pixels))
