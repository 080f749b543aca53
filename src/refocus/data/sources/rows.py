"""What a source of labelled images is, and how it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from refocus.errors import InputError
from refocus.vit.classes import plain

HUB = "hf-data:"
_SAID = re.compile(
    r"(?P<place>.+)\?(?P<key>split|image|label|mask|group|config)=(?P<value>[^?]+)", re.DOTALL
)
# a part of a data set -> how people call it, the usual name first
PARTS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# what a column holds -> how people call it
COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image", "path", "file", "file_name", "filename", "filepath", "image_path", "img"),
    "label": ("label", "class", "labels", "class_name", "label_name", "category", "target"),
    "mask": ("mask", "mask_path", "masks", "mask_file_name", "segmentation_mask"),
    "group": ("group", "groups"),
    "split": ("split", "partition", "fold"),
}
CLASSES = ("classes.txt", "classnames.txt", "labels.txt")


@dataclass(frozen=True)
class Row:
    """One labelled image.

    name: of its file. image, mask: a file, or the content of one.
    """

    label: str
    name: str
    image: Path | bytes
    mask: Path | bytes | None = None
    group: str = ""


@dataclass(frozen=True)
class LeftOut:
    """An image that is not read, and why."""

    reason: str


@dataclass(frozen=True)
class Stated:
    """The classes of a source in the order of the numbers that it gives them."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Labelled images that do not lie in class folders.

    what: it is, in words. state: texts that change when its content does. parts: of `PARTS` that
    it holds; empty where it has no splits. rows: reads them, and the order of the classes where it
    is known.
    """

    what: str
    state: tuple[str, ...]
    rows: Callable[[], Iterator[Row | LeftOut | Stated]]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A source as the user names it: PLACE?split=test?label=COLUMN.

    parameter: what the caller calls it. part: of `PARTS`, taken where no split is named.
    """

    place: str
    parameter: str
    part: str
    split: str | None = None
    config: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file or folder."""
        return Path(self.place).expanduser()

    @property
    def shown(self) -> str:
        """The source, as messages name it."""
        return f"‹{self.parameter}› {self.place}"


def asking(given: str | Path, parameter: str, part: str) -> Asked:
    """What a text such as `data.csv?split=test` asks for."""
    place, said = str(given), dict[str, str]()
    while match := _SAID.fullmatch(place):
        place = match["place"]
        said = {match["key"]: match["value"], **said}
    if place.startswith(HUB):
        place = place.replace("\\", "/")  # a path of Windows, where it went through one
    split, config = said.pop("split", None), said.pop("config", None)
    return Asked(place, parameter, part, split, config, said)


def part_of(name: str) -> str | None:
    """Which of `PARTS` a split's name means, if any."""
    return next((part for part, names in PARTS.items() if name.lower() in names), None)


def choose_split(asked: Asked, splits: list[str]) -> str:
    """The split that is read: the one asked for, or the first of those that the task prefers.

    Raises:
        InputError: no split of that name, or several of which none is called as splits are.
    """
    wanted = {"test": ("test", "val", "train"), "train": ("train", "val", "test")}
    if asked.split is not None:
        mine = part_of(asked.split)
        for name in splits:
            if name == asked.split or (mine is not None and part_of(name) == mine):
                return name
        raise InputError(f"{asked.shown}: has no split {asked.split!r}; it has {', '.join(splits)}")
    for part in wanted[asked.part]:
        for name in splits:
            if part_of(name) == part:
                return name
    if len(splits) > 1:
        raise InputError(
            f"{asked.shown}: has the splits {', '.join(splits)}, and none is called train, val or "
            "test; add ?split=NAME to its name"
        )
    return splits[0]


def column(asked: Asked, kind: str, names: list[str], *, needed: bool) -> str | None:
    """The column of a kind: the one asked for, or the one of its usual names that is there.

    Raises:
        InputError: it is needed and there is none, or several could be meant.
    """
    if (wanted := asked.columns.get(kind)) is not None:
        found = [name for name in names if name == wanted or name == wanted.lower()]
    else:
        found = [name for usual in COLUMNS[kind] for name in names if name.lower() == usual]
    if len(found) > 1 and (asked.columns.get(kind) is None and kind != "image"):
        raise InputError(
            f"{asked.shown}: the columns {' and '.join(found)} could both be the {kind}; add "
            f"?{kind}=COLUMN to its name"
        )
    if not found and (needed or wanted is not None):
        raise InputError(
            f"{asked.shown}: has no column {wanted or kind}; it has {', '.join(names) or 'none'}; "
            f"add ?{kind}=COLUMN to its name"
        )
    return found[0] if found else None


def class_names_beside(place: Path) -> list[str] | None:
    """Names of classes in the order of their numbers, from classes.txt beside a source."""
    folder = place if place.is_dir() else place.parent
    for name in CLASSES:
        if (file := folder / name).is_file():
            text = file.read_text(encoding="utf-8-sig", errors="replace").rstrip()
            return [plain(line.strip()) for line in text.splitlines()]  # a number is a line
    return None


def named(label: str, names: list[str] | None, shown: str) -> str:
    """The class that a number means where names are known; any other label is its own name.

    Raises:
        InputError: a number without a name.
    """
    if names is None or not label.isdecimal():
        return label
    if int(label) >= len(names):
        raise InputError(
            f"{shown}: label {label}, but there are {len(names)} class names; must be 0 to "
            f"{len(names) - 1}"
        )
    if not names[int(label)]:
        raise InputError(f"{shown}: label {label}, but that line of the class names is blank")
    return names[int(label)]
