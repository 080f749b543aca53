"""Which backend a name means."""

from __future__ import annotations

from collections.abc import Callable

from refocus.errors import InputError
from refocus.masks.backends import prompted, rembg_models, semantic, text
from refocus.masks.backends.checkpoints import Checkpoint
from refocus.masks.backends.protocol import Backend
from refocus.masks.choice import HF, REMBG, backend_of

ByOurs = Callable[[Backend], Backend]  # from our own masks to the backend that they prompt


def made(ref: str, device: str) -> tuple[Backend | None, ByOurs | None]:
    """The backend of a name other than ours, or what makes it from our masks, which prompt it.

    Raises:
        InputError: it cannot be had, or the checkpoint is of a kind that makes no masks.
    """
    kind, names = backend_of(ref)
    if kind == REMBG:
        return rembg_models.removal(*names), None
    first = Checkpoint(names[0], device)
    if kind != HF:
        more = [prompted.in_boxes(Checkpoint(name, device)) for name in names[1:]]
        return (text.by_boxes(first, more[0]) if more else text.by_map(first)), None
    if first.kind in prompted.KINDS:
        masks = prompted.in_boxes(first)
        return None, lambda ours: prompted.prompted(masks, ours)
    if first.kind in (*text.MAPS, *text.DETECTORS):
        raise InputError(
            f"‹backend› {ref}: is a {first.kind}, which looks for an object by name; must be "
            f"‹backend=text:{first.place}›"
        )
    found = semantic.segmenter(first)
    if found is None:
        raise InputError(
            f"‹backend› {ref}: a {first.kind or 'model without a type'} makes no masks"
        )
    return found, None
