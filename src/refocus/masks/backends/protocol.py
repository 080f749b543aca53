"""What every backend of `refocus masks` is: a function from an image and a name to a soft mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Found:
    """A soft mask at the size of its image.

    soft: float32 `[H, W]` in [0, 1], the object above 0.5. other: a second opinion on the object,
    bool `[H, W]`; None where there is none.
    """

    soft: np.ndarray
    other: np.ndarray | None = None


class Backend(Protocol):
    """Finds the object of an image."""

    def __call__(self, image: Image.Image, name: str, /) -> Found:
        """Of an upright RGB image and what it shows in words, "" where that is not known.

        Raises:
            InputError: there is no mask for this image; says why, without naming the file.
        """
        ...


def enlarged(soft: Tensor, size: tuple[int, int]) -> np.ndarray:
    """A map `[h, w]` at an image's size (width, height): float32 `[H, W]`."""
    full = F.interpolate(
        soft[None, None].float().cpu(), size=size[::-1], mode="bilinear", align_corners=False
    )
    values: np.ndarray = torch.clamp(full[0, 0], 0, 1).numpy()
    return values
