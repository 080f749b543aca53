"""The data sets of the field, one table, and how each is divided.

A data set's root holds SPLIT/images/CLASS/FILE. Training images are divided once, by file name:

pool: what every method trains on, all of it or a few images a class.
dev: what chooses rates and shares. No test image, none of the pool, and in the mix of places that
    training has. Where the data set has a validation split the dev images are of it, else every
    fourth image of training.
held: the other half of a validation split with group labels, for methods that fit a last layer on
    images that did not train the network (DFR and its like); empty elsewhere.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from refocus.data.folders import scan
from refocus.errors import InputError
from refocus.masks.trust import RECORDS, trusted
from refocus.records import Sample

MASK_SCORE = 0.5  # the product's default
_EVERY = 4  # of the training images of a data set without a validation split, for development


@dataclass(frozen=True)
class DataSet:
    """A row: splits by name, and what is read at the end."""

    train: str
    tests: tuple[str, ...]
    worst: tuple[str, ...]  # the tests over which the worst class is taken
    val: str | None = None
    inner: str = "images"  # folder of a split in which the class folders lie
    groups: bool = False  # metadata.csv says on which place each image stands
    gap: tuple[str, ...] = ()  # of the tests, objects on backgrounds of their class and of others
    minority: int = 0  # in training one image in so many stands on another class's place


_BAR = DataSet("train", ("test_same", "test_ood"), ("test_ood",), val="val")
_WATERBIRDS = DataSet(
    "train",
    ("test_aligned", "test_conflict", "test_natural"),
    ("test_aligned", "test_conflict"),
    val="val",
    groups=True,
    minority=20,
)
DATA: Mapping[str, DataSet] = {
    "bar": _BAR,
    "bar-again": _BAR,  # other base models, trained after all choices were made
    "bar-parts": DataSet(  # the official test images that have a mask, and what is left of them
        "train",
        ("test_masked", "test_only_fg", "test_only_bg", "test_mixed_same", "test_mixed_rand"),
        ("test_masked",),
        val="val",
        gap=("test_mixed_same", "test_mixed_rand"),
    ),
    "waterbirds": _WATERBIRDS,
    "waterbirds-again": _WATERBIRDS,
    "planted": DataSet("tune", ("test_same", "test_shuffled"), ("test_same", "test_shuffled")),
    "planted2": DataSet("tune", ("test_same", "test_shuffled"), ("test_same", "test_shuffled")),
    "caltech100": DataSet("train", ("test",), ("test",), val="val", inner=""),
}


@dataclass(frozen=True)
class Part:
    """Images and masks in class folders, as `refocus.tune` reads them."""

    images: Path
    masks: Path

    def samples(self, model: nn.Module) -> list[Sample]:
        """Every image with its mask, or without one where it has none that is trusted."""
        found = scan(self.images, model, masks=self.masks, mask_polarity="keep")
        good = {s.image for s in trusted(found, self.masks, MASK_SCORE)}
        return [s if s.image in good else replace(s, mask=None) for s in found]

    def masked(self, model: nn.Module) -> list[Sample]:
        """The images whose mask is trusted."""
        return [s for s in self.samples(model) if s.mask is not None]


@dataclass(frozen=True)
class Source:
    """A data set on this machine, divided. `places`: image file name -> place, with groups."""

    kind: DataSet
    root: Path
    pool: Part
    dev: Part
    held: Part | None
    places: Mapping[str, str]

    def test(self, name: str) -> Path:
        """Class folders of a test set."""
        return self.root / name / self.kind.inner


def prepare(name: str, root: Path, masks: Path | None, out: Path) -> Source:
    """Divide a data set into folders of links below `out`, made anew by each call.

    Args:
        name: a row of DATA.
        root: holds the splits.
        masks: holds SPLIT/CLASS/FILE.png as `refocus masks` wrote them; None: the data set's own.
        out: a folder of this field, in which one process writes at a time.

    Raises:
        InputError: there are no masks.
    """
    kind = DATA[name]
    places = _places(root) if kind.groups else {}
    train = _files(root / kind.train / kind.inner)
    if kind.val is None:
        parts = {"dev": _each(train, 0), "pool": _each(train, 0, others=True)}
    else:
        val = _files(root / kind.val / kind.inner)
        parts = {"dev": val, "pool": train}
        if kind.groups:
            parts = {
                "dev": _in_training_mix(_halves(val, places, 0), places, kind.minority),
                "held": _halves(val, places, 1),
                "pool": train,
            }
    made = {}
    for part, files in parts.items():
        split = kind.train if part == "pool" or kind.val is None else kind.val
        own = root / split / "masks" if masks is None else masks / split
        if not own.is_dir():
            raise InputError(
                f"--masks {name}: {own} is missing; `refocus masks` makes such a folder"
            )
        made[part] = _linked(out / "parts" / name / part, files, own)
    return Source(kind, root, made["pool"], made["dev"], made.get("held"), places)


# --- dividing -------------------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("*/*") if f.is_file())


def _each(files: Sequence[Path], turn: int, *, others: bool = False) -> list[Path]:
    """Of each class every fourth file, or the others."""
    found = []
    for group in _grouped(files, lambda f: f.parent.name):
        found += [f for i, f in enumerate(group) if (i % _EVERY == turn) != others]
    return found


def _halves(files: Sequence[Path], places: Mapping[str, str], side: int) -> list[Path]:
    """Every second file of each class on each place."""
    groups = _grouped(files, lambda f: (f.parent.name, places[f.stem]))
    return [f for group in groups for i, f in enumerate(group) if i % 2 == side]


def _in_training_mix(files: Sequence[Path], places: Mapping[str, str], minority: int) -> list[Path]:
    """So few images on another class's place as training has: one in `minority`."""
    kept = []
    for group in _grouped(files, lambda f: f.parent.name):
        usual, other = sorted(_grouped(group, lambda f: places[f.stem]), key=_own_place(places))
        kept += [*usual, *other[: math.ceil(len(usual) / (minority - 1))]]
    return kept


def _own_place(places: Mapping[str, str]) -> Callable[[list[Path]], bool]:
    """Sorts first the files whose class is named after the place they stand on."""
    return lambda group: not group[0].parent.name.startswith(places[group[0].stem])


def _grouped(files: Iterable[Path], key: Callable[[Path], Hashable]) -> list[list[Path]]:
    groups: dict[object, list[Path]] = defaultdict(list)
    for file in files:
        groups[key(file)].append(file)
    return list(groups.values())


def _places(root: Path) -> dict[str, str]:
    """File stem -> place. Test birds stand on both, so only training and validation are read."""
    with (root / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return {r["stem"]: r["place"] for r in csv.DictReader(file) if r["split"] in _SPLITS}


_SPLITS = ("train", "val")


def _linked(folder: Path, files: Sequence[Path], masks: Path) -> Part:
    """A folder of links, so that masks that were made meanwhile are in it."""
    shutil.rmtree(folder, ignore_errors=True)
    part = Part(folder / "images", folder / "masks")
    for file in files:
        mask = masks / file.parent.name / f"{file.stem}.png"
        for source, kind in ((file, part.images), (mask, part.masks)):
            link = kind / file.parent.name / source.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if source.exists():
                link.symlink_to(source.resolve())
    if (masks / RECORDS).exists():
        (part.masks / RECORDS).symlink_to((masks / RECORDS).resolve())
    return part
