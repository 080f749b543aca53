"""A labelled folder with masks -> its distribution shifts, image by image, in memory.

Two families: that of ImageNet-9 (Xiao et al., "Noise or Signal", ICLR 2021) asks what foreground
    and background each contribute; that of SI-Score (Djolonga et al., CVPR 2021) moves, scales and
    turns the object. Each is a row of `KINDS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from refocus.data import composites
from refocus.data.composites import Scene
from refocus.data.folders import image_files
from refocus.data.images import mask_of, read_image
from refocus.errors import InputError
from refocus.records import Sample

_AREA = (
    0.2  # of the object's bounding box where it is moved or turned, as in SI-Score's location set
)
_CENTRE = (0.5, 0.5)
_PLACES = tuple((x, y) for y in (0.1, 0.3, 0.5, 0.7, 0.9) for x in (0.1, 0.3, 0.5, 0.7, 0.9))
_SIZES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_ANGLES = tuple(range(0, 360, 45))
_DONORS = ("none", "same", "other", "next", "folder")
UNSEEN = ("blurred", "plain", "moved")  # kinds that no objective trains on and that need no folder
REAL = "real"  # likewise, with backgrounds from a folder of the user's
Compose = Callable[[Scene, "Image.Image | None", Any], Image.Image]


@dataclass(frozen=True)
class Kind:
    """make: (scene, background, level) -> shifted image.

    title: its name in plain words. about: what is shown.
    donor: whose background it gets, of the same class, of another one drawn at random, of the next
    one, an image of a folder of backgrounds, or none. levels: of a curve, by folder name; a kind
    without a curve has one, "".
    """

    make: Compose
    title: str
    about: str
    donor: str = "none"
    levels: tuple[tuple[str, Any], ...] = (("", None),)


def _mixed(scene: Scene, background: Image.Image | None, _level: Any) -> Image.Image:
    assert background is not None
    return composites.on_background(scene, background)


def _hole(scene: Scene, background: Image.Image | None, _level: Any) -> Image.Image:
    assert background is not None
    return composites.without_object(composites.fitted(background, scene.image), scene.mask)


def _location(scene: Scene, background: Image.Image | None, level: Any) -> Image.Image:
    assert background is not None
    return composites.placed(scene, background, area=_AREA, centre=level, angle=0)


def _size(scene: Scene, background: Image.Image | None, level: Any) -> Image.Image:
    assert background is not None
    return composites.placed(scene, background, area=level, centre=_CENTRE, angle=0)


def _rotation(scene: Scene, background: Image.Image | None, level: Any) -> Image.Image:
    assert background is not None
    return composites.placed(scene, background, area=_AREA, centre=_CENTRE, angle=level)


KINDS = {
    "only-fg": Kind(
        lambda scene, _b, _l: composites.on_black(scene), "Object alone", "the object on black"
    ),
    "only-bg": Kind(
        lambda scene, _b, _l: scene.ground,
        "Background alone",
        "the background, with the object filled in from its surroundings",
    ),
    "no-fg": Kind(
        lambda scene, _b, _l: composites.silhouette(scene),
        "Background with the object's outline",
        "the background with the object blacked out, so that its outline stays visible",
    ),
    "mixed-same": Kind(
        _mixed,
        "Own-class background",
        "the object on the background of another image of its class",
        "same",
    ),
    "mixed-rand": Kind(
        _mixed,
        "Other-class background",
        "the object on the background of an image of another class, drawn at random",
        "other",
    ),
    "mixed-next": Kind(
        _mixed,
        "Next class's background",
        "the object on the background of an image of the next class",
        "next",
    ),
    "blurred": Kind(
        lambda scene, _b, _l: composites.on_blur(scene),
        "Blurred background",
        "the object on its own background, strongly blurred; no objective trains on it",
    ),
    "plain": Kind(
        lambda scene, _b, _l: composites.on_plain(scene),
        "Plain background",
        "the object on a plain colour; no objective trains on it",
    ),
    "moved": Kind(
        lambda scene, _b, _l: composites.moved(scene),
        "Object moved",
        "the object moved and scaled down on its own background; no objective trains on it",
    ),
    REAL: Kind(
        _mixed,
        "Your backgrounds",
        "the object on a background from the folder of backgrounds; no objective trains on it",
        "folder",
    ),
    "outline": Kind(
        _hole,
        "Outline check",
        "sanity check: another class's background with a hole of the object's shape, filled in; no "
        "model should do better than by always giving the same answer",
        "other",
    ),
    "location": Kind(
        _location,
        "Object location",
        f"the object, its bounding box {_AREA:.0%} of the image, at 25 places on another class's "
        "background",
        "other",
        tuple((f"x{100 * x:02.0f}-y{100 * y:02.0f}", (x, y)) for x, y in _PLACES),
    ),
    "size": Kind(
        _size,
        "Object size",
        "the object centred on another class's background, its bounding box 1 % to 100 % of the "
        "image",
        "other",
        tuple((f"{100 * area:03.0f}", area) for area in _SIZES),
    ),
    "rotation": Kind(
        _rotation,
        "Object rotation",
        f"the object turned by 0 to 315 degrees, its bounding box {_AREA:.0%} of the image, "
        "centred on another class's background",
        "other",
        tuple((f"{angle:03d}", angle) for angle in _ANGLES),
    ),
}


def kinds(given: Sequence[str], parameter: str = "kinds", *, real: bool = False) -> list[str]:
    """Names of shifts; `all` alone is every kind, `real` only where it can be made."""
    every = [name for name in KINDS if real or name != REAL]
    names = every if list(given) == ["all"] else given
    if unknown := [n for n in names if n not in KINDS]:
        raise InputError(
            f"‹{parameter}› {unknown[0]}: no such shift; choose one of all, {', '.join(KINDS)}"
        )
    return list(dict.fromkeys(names))


def donors(samples: Sequence[Sample], rule: str, seed: int) -> dict[Path, Sample]:
    """Image -> whose background it gets.

    Images without such a donor (alone in their class, or one class alone) are missing.

    A choice depends on the seed, the listing and the image's position in it.
    """
    of: dict[str, list[Sample]] = {}
    for sample in samples:
        of.setdefault(_class(sample), []).append(sample)
    classes = sorted(of)  # by folder, so that models with another order of classes get the same
    rank = {name: number for number, name in enumerate(classes)}
    seen: Counter[str] = Counter()
    found = {}
    for position, sample in enumerate(samples):
        rng = np.random.default_rng([seed, _DONORS.index(rule), position])
        mine = _class(sample)
        if rule == "same":
            others = len(of[mine]) - 1
            if others:
                found[sample.image] = of[mine][_but(seen[mine], int(rng.integers(others)))]
            seen[mine] += 1
        elif len(classes) > 1:
            following = (rank[mine] + 1) % len(classes)
            drawn = following if rule == "next" else _another(rng, rank[mine], len(classes))
            pool = of[classes[drawn]]
            found[sample.image] = pool[int(rng.integers(len(pool)))]
    return found


def _another(rng: np.random.Generator, own: int, count: int) -> int:
    """One of so many positions, drawn at random, but not the own one."""
    return _but(own, int(rng.integers(count - 1)))


def _but(own: int, drawn: int) -> int:
    """Where a draw among all positions but the own one leads."""
    return drawn + (drawn >= own)


def _class(sample: Sample) -> str:
    return sample.image.parent.name


@dataclass(frozen=True)
class Shift:
    """One kind at one level over a list of samples with masks.

    Called with a sample it gives the shifted image.
    """

    kind: str
    level: str
    partners: dict[Path, Sample]  # who lends a background; those of a folder have no mask

    def __call__(self, sample: Sample) -> Image.Image:
        """The shifted image of a sample."""
        return self.of(Opened(sample))

    def of(self, opened: Opened) -> Image.Image:
        """The same of an image that is open already, for the next of its shifts."""
        row = KINDS[self.kind]
        background = None
        if row.donor != "none":
            background = opened.ground(self.partners[opened.sample.image])
        return row.make(opened.scene, background, dict(row.levels)[self.level])


class Opened:
    """A sample whose files are read, and taken apart, once for all of its shifts."""

    def __init__(self, sample: Sample) -> None:
        """sample: one with a mask, as `shifts` lets through."""
        self.sample = sample
        self._grounds: dict[tuple[Path, Path | None, bool], Image.Image] = {}

    @cached_property
    def scene(self) -> Scene:
        """Image and mask."""
        return _read(self.sample)

    def ground(self, partner: Sample) -> Image.Image:
        """Another image, without its object where it has a mask, fitted to the size of this one."""
        # `real` lends whole images, also those that lend other kinds what is left of their object
        key = (partner.image, partner.mask, partner.inverted)
        if key not in self._grounds:
            bare = read_image(partner.image) if partner.mask is None else _read(partner).ground
            self._grounds[key] = composites.fitted(bare, self.scene.image)
        return self._grounds[key]


def _read(sample: Sample) -> Scene:
    image = read_image(sample.image)
    return Scene(image, mask_of(sample, image))


def shifts(
    samples: Sequence[Sample],
    kind: str,
    seed: int,
    only: Collection[Path] | None = None,
    backgrounds: Sequence[Path] = (),
) -> list[tuple[Shift, list[Sample]]]:
    """One Shift per level of a kind, with the samples it applies to.

    Those with a mask, and a donor where one is needed.

    only: images to shift; all others still lend their backgrounds. backgrounds: image files, for
    the kind `real`.
    """
    masked = [s for s in samples if s.mask is not None]
    row = KINDS[kind]
    if row.donor == "folder":
        partners = _from_folder(masked, backgrounds, seed)
    else:
        partners = {} if row.donor == "none" else donors(masked, row.donor, seed)
    usable = [
        s
        for s in masked
        if (row.donor == "none" or s.image in partners) and (only is None or s.image in only)
    ]
    if not usable:
        need = {
            "none": "an image with a mask",
            "same": "two images of one class with masks",
            "folder": "an image with a mask, and ‹backgrounds›, a folder of images",
        }
        raise InputError(
            f"shift {kind}: needs {need.get(row.donor, 'images of two classes with masks')}"
        )
    return [(Shift(kind, level, partners), usable) for level, _ in row.levels]


def _from_folder(
    samples: Sequence[Sample], backgrounds: Sequence[Path], seed: int
) -> dict[Path, Sample]:
    """image -> which of the backgrounds it gets, drawn by the seed and the image's position."""
    found = {}
    for position, sample in enumerate(samples if backgrounds else ()):
        rng = np.random.default_rng([seed, _DONORS.index("folder"), position])
        found[sample.image] = Sample(backgrounds[int(rng.integers(len(backgrounds)))], -1)
    return found


def grounds(folder: str | Path | None) -> list[Path]:
    """The image files of a folder of backgrounds, in it or in its folders; none without a folder.

    Raises:
        InputError: no such folder, no image in it, or its first one cannot be read.
    """
    if folder is None:
        return []
    found = image_files(Path(folder).expanduser(), "backgrounds")
    if not found:
        raise InputError(f"‹backgrounds› {folder}: holds no image")
    read_image(found[0])
    return found


def unseen(*, real: bool) -> tuple[str, ...]:
    """Kinds that no objective trains on, with `real` where there is a folder of backgrounds."""
    return (*UNSEEN, REAL) if real else UNSEEN
