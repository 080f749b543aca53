"""Which backend a name means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from refocus.errors import InputError
from refocus.masks.backends import prompted, rembg_models, semantic, text
from refocus.masks.backends.checkpoints import Checkpoint
from refocus.masks.backends.protocol import Backend
from refocus.masks.choice import HF, REMBG, backend_of

ByOurs = Callable[[Backend], Backend]  # from our own masks to the backend that they prompt


@dataclass(frozen=True)
class Known:
    """A backend before anything large is read.

    checkpoints: of transformers, by their configurations; none of rembg.
    """

    ref: str
    kind: str
    names: tuple[str, ...]
    checkpoints: tuple[Checkpoint, ...]

    @property
    def by_ours(self) -> bool:
        """Whether our own masks prompt it."""
        return self.kind == HF and self.checkpoints[0].kind in prompted.KINDS


def known(ref: str, device: str) -> Known:
    """The backend of a name other than ours.

    Raises:
        InputError: there is no such checkpoint.
    """
    kind, names = backend_of(ref)
    read = () if kind == REMBG else tuple(Checkpoint(name, device, kind) for name in names)
    return Known(ref, kind, names, read)


def made(backend: Known) -> tuple[Backend | None, ByOurs | None]:
    """The backend with its weights, or what makes it from our masks, which prompt it.

    Raises:
        InputError: it cannot be had, or the checkpoint is of a kind that makes no masks.
    """
    if backend.kind == REMBG:
        return rembg_models.removal(*backend.names), None
    first, *more = backend.checkpoints
    if backend.kind != HF:
        boxes = [prompted.in_boxes(each) for each in more]
        return (text.by_boxes(first, boxes[0]) if boxes else text.by_map(first)), None
    if backend.by_ours:
        masks = prompted.in_boxes(first)
        return None, lambda ours: prompted.prompted(masks, ours)
    if first.kind in (*text.MAPS, *text.DETECTORS):
        raise InputError(
            f"‹backend› {backend.ref}: is a {first.kind}, which looks for an object by name; must "
            f"be ‹backend=text:{first.place}›"
        )
    found = semantic.segmenter(first)
    if found is None:
        raise InputError(
            f"‹backend› {backend.ref}: a {first.kind or 'model without a type'} makes no masks"
        )
    return found, None


def identity(backend: Known, made: Backend | None) -> list[list[str]]:
    """What a backend is that was made, to be compared when a folder of its masks is gone on with.

    By the content of folders and files, and by the weights that were read of what a hub gave.
    """
    if isinstance(made, rembg_models.Removal):
        return [[*backend.names, *made.known]]
    return [checkpoint.known for checkpoint in backend.checkpoints]
