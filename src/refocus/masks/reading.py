"""What a reader of somebody's masks is, and what a mask of any format must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


def checked_size(width: object, height: object) -> Size | None:
    """A size that an export states, None where it states none that is one."""
    try:
        found = int(str(width)), int(str(height))
    except ValueError:
        return None
    return found if min(found) > 0 else None
