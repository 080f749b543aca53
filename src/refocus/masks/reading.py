"""What a reader of somebody's masks is, and what a mask of any format must be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refocus.vit.classes import loose, plain

log = logging.getLogger("refocus")

Size = tuple[int, int]  # width, height


def _unknown(_image: Path) -> Size | None:
    return None


@dataclass(frozen=True)
class MaskReader:
    """A source of masks.

    read: image file, its size -> bool `[H, W]`, true on the foreground; None where the source has
    none. size: what the source says of an image's size, None where it does not. picture: the file
    that a mask is drawn in, None where there is none.
    """

    read: Callable[[Path, Size], np.ndarray | None]
    size: Callable[[Path], Size | None] = _unknown
    picture: Callable[[Path], Path | None] = lambda _image: None

    def __call__(self, image: Path, size: Size) -> np.ndarray | None:
        """Of an image file and its size."""
        return self.read(image, size)


class Labels:
    """Which labels of a source's objects are the class of an image, by the name of its folder."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted({name for name in names if name})
        self._known: dict[str, set[str]] = {}

    def of(self, folder: str) -> set[str]:
        """The labels of a class folder's very name, or else those that nearly have it.

        Empty where there is none: then all objects count. What is not of its very name is told,
        once.
        """
        if folder not in self._known:
            self._known[folder] = self._found(folder)
        return self._known[folder]

    def _found(self, folder: str) -> set[str]:
        if same := {name for name in self._names if plain(name) == plain(folder)}:
            return same
        near = [name for name in self._names if loose(name) == loose(folder)]
        if near:
            log.info("category %s is taken for class folder %s", " and ".join(near), folder)
        elif self._names:
            log.info("no category is called %s: all objects of its images count", folder)
        return set(near)


def checked_size(width: object, height: object) -> Size | None:
    """A size that an export states, None where it states none that is one."""
    try:
        found = int(str(width)), int(str(height))
    except ValueError:
        return None
    return found if min(found) > 0 else None
