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
from refocus.data.listing import by_stem, listing
from refocus.errors import InputError
from refocus.files import read_json, replacing
from refocus.masks.trust import RECORDS
from refocus.vit.classes import plain

_KEPT = ".replaced"  # masks that a person drew over


class Folders:
    """images: CLASS/FILE. masks: CLASS/FILE-STEM.*, made as PNG where it is missing."""

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
        image, file = self._file(name), self._masks_of(name).get(_key(name))
        return read_mask(file, read_image(image)) if file else None

    def doubtful(self) -> list[str]:
        """Names of all images, the least trusted mask first.

        Before all those without a mask; one without a score is trusted.
        """
        record = self.masks / RECORDS
        rows = read_json(record)["masks"] if record.exists() else []
        scores = {row["mask"]: row["score"] for row in rows}
        found = {name.partition("/")[0]: name for name in self.files}
        masks = {kind: self._masks_of(name) for kind, name in found.items()}

        def rank(name: str) -> tuple[float, str]:
            file = masks[name.partition("/")[0]].get(_key(name))
            key = file.relative_to(self.masks).as_posix() if file else ""
            return (scores.get(key, 1.0) if file else -1.0, name)

        return sorted(self.files, key=rank)

    def save(self, name: str, mask: np.ndarray) -> Path:
        """Write a mask bool `[H, W]` as PNG; the one that was there is kept in .replaced beside it.

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
        before = self._masks_of(name).get(_key(name))
        place = self.masks / self._file(name).parent.name
        file = before.with_suffix(".png") if before else place / f"{self._file(name).stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if before:
            kept = self.masks / _KEPT / file.parent.name
            kept.mkdir(parents=True, exist_ok=True)
            free = (kept / f"{before.stem}.{number}{before.suffix}" for number in count())
            shutil.copy2(before, next(file_ for file_ in free if not file_.exists()))
        upright = Image.Exif()
        upright[ORIENTATION] = 1  # as the image was shown, whatever EXIF says of its pixels
        with replacing(file) as partial:
            picture = Image.fromarray(mask.astype(np.uint8) * 255)
            picture.save(partial, format="PNG", exif=upright)
        if before and before != file:  # of another kind: an image has one mask
            before.unlink()
        return file

    def _file(self, name: str) -> Path:
        if name not in self.files:
            raise InputError(f"{name}: is not in the image folder that the app was started with")
        return self.files[name]

    def _masks_of(self, name: str) -> dict[str, Path]:
        """The masks of an image's class by stem, of any kind of image, as `tune` reads them."""
        place = self.masks / self._file(name).parent.name
        return by_stem(listing(place, "masks").images) if place.is_dir() else {}


def _key(name: str) -> str:
    return plain(Path(name).stem)
