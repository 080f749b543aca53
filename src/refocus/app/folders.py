"""The folders that an app was started with: their images by name, and their masks.

Nothing outside of them is read or written.
"""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from refocus.data.folders import class_folders
from refocus.data.images import ORIENTATION, read_image, read_mask
from refocus.errors import InputError
from refocus.files import read_json, replacing
from refocus.masks.trust import RECORDS

_KEPT = ".replaced"  # masks that a person drew over


class Folders:
    """images: CLASS/FILE. masks: CLASS/FILE-STEM.png, made where it is missing."""

    def __init__(self, images: Path, masks: Path) -> None:
        """List the images once."""
        self.images, self.masks = images.expanduser().resolve(), masks.expanduser().resolve()
        self.files = {
            f"{name}/{file.name}": file
            for name, inside in class_folders(self.images, "images").items()
            for file in inside
        }

    def image(self, name: str) -> Image.Image:
        """By its name in the listing, which is the only way to one.

        Raises:
            InputError: a name that is not in the listing, such as a path out of the folder.
        """
        return read_image(self._file(name))

    def mask(self, name: str) -> Tensor | None:
        """`[1, H, W]` in [0, 1], or None where there is none yet."""
        file = self._mask_file(name)
        return read_mask(file, self.image(name)) if file.is_file() else None

    def doubtful(self) -> list[str]:
        """Names of all images, the least trusted mask first.

        Before all those without a mask; one without a score is trusted.
        """
        record = self.masks / RECORDS
        rows = read_json(record)["masks"] if record.exists() else []
        scores = {row["mask"]: row["score"] for row in rows}

        def rank(name: str) -> tuple[float, str]:
            file = self._mask_file(name)
            key = file.relative_to(self.masks).as_posix()
            return (-1.0 if not file.is_file() else scores.get(key, 1.0), name)

        return sorted(self.files, key=rank)

    def save(self, name: str, mask: np.ndarray) -> Path:
        """Write a mask bool `[H, W]`; the one that was there is kept in .replaced beside it.

        Raises:
            InputError: nothing or everything is marked, or the sizes differ.
        """
        image = self.image(name)
        if mask.shape != (image.height, image.width):
            raise InputError(
                f"{name}: the mask is {mask.shape[1]} x {mask.shape[0]}, the image {image.width} x "
                f"{image.height}"
            )
        if not mask.any() or mask.all():
            raise InputError(f"{name}: mark the object, not {'all' if mask.all() else 'nothing'}")
        file = self._mask_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            kept = self.masks / _KEPT / file.parent.name
            kept.mkdir(parents=True, exist_ok=True)
            free = (kept / f"{file.stem}.{number}.png" for number in count())
            shutil.copy2(file, next(file_ for file_ in free if not file_.exists()))
        upright = Image.Exif()
        upright[ORIENTATION] = 1  # as the image was shown, whatever EXIF says of its pixels
        with replacing(file) as partial:
            picture = Image.fromarray(mask.astype(np.uint8) * 255)
            picture.save(partial, format="PNG", exif=upright)
        return file

    def _file(self, name: str) -> Path:
        if name not in self.files:
            raise InputError(f"{name}: is not in the image folder that the app was started with")
        return self.files[name]

    def _mask_file(self, name: str) -> Path:
        file = self._file(name)
        return self.masks / file.parent.name / f"{file.stem}.png"
