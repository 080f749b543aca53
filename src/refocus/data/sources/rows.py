"""What a source of labelled images is, and how it is asked for."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refocus.errors import InputError
from refocus.vit.classes import plain

log = logging.getLogger("refocus")

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
_NUMBER = re.compile(r"-?[0-9]+(\.0*)?")  # 2.0: pandas, where a value of the column is missing
CLASSES = ("classes.txt", "classnames.txt", "labels.txt")


@dataclass(frozen=True)
class Row:
    """One labelled image.

    name: of its file. image, mask: a file, or the content of one. origin: the path by which the
    source knows an image whose content it holds, "" where it has none.
    """

    label: str
    name: str
    image: Path | bytes
    mask: Path | bytes | None = None
    group: str = ""
    origin: str = ""


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
    it holds; empty where it has no splits. split: the one that is read, None where it has none.
    rows: reads them, and the order of the classes where it is known.
    """

    what: str
    state: tuple[str, ...]
    rows: Callable[[], Iterator[Row | LeftOut | Stated]]
    parts: tuple[str, ...] = ()
    split: str | None = None


@dataclass(frozen=True)
class Asked:
    """A source as the user names it: PLACE?split=test?label=COLUMN.

    parameter: what the caller calls it. part: of `PARTS`, taken where no split is named. beside:
    for masks, the split that their images are read from, "" where it is not known; None for images.
    """

    place: str
    parameter: str
    part: str
    split: str | None = None
    config: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    beside: str | None = None

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


def parts_of(splits: Sequence[str]) -> tuple[str, ...]:
    """The `PARTS` among the names of splits."""
    return tuple(part for name in splits if (part := part_of(name)) is not None)


def refuse_unused(asked: Asked, used: Sequence[str]) -> None:
    """Stop at ?KEY=VALUE that a source has no use for.

    Raises:
        InputError: names the first such key.
    """
    given = {"split": asked.split, "config": asked.config, **asked.columns}
    for key, value in given.items():
        if value is not None and key not in used:
            what = {"split": "splits", "config": "configurations"}.get(
                key, "columns to choose from"
            )
            raise InputError(f"{asked.shown}: has no {what}; leave out ?{key}={value}")


def split_of_files(
    asked: Asked, files: Sequence[Path]
) -> tuple[list[Path], str | None, tuple[str, ...]]:
    """The files of the split that is read, its name, and the `PARTS` that there are.

    Files called `train-...`, `test-...`, as the hub has them, are splits.
    """
    of_split: dict[str, list[Path]] = {}
    for file in files:
        start = re.match(r"[^\W\d_]*", file.name)
        of_split.setdefault(start[0] if start else "", []).append(file)
    if not all(map(part_of, of_split)):
        return list(files), None, ()
    split = choose_split(asked, list(of_split))
    return of_split[split], split, parts_of(list(of_split))


def choose_split(asked: Asked, splits: list[str]) -> str:
    """The split that is read: the one asked for, or the first of those that the task prefers.

    Of masks it is the one that their images are read from.

    Raises:
        InputError: no split of that name, several that mean the same part, or several of which none
            is called as splits are.
    """
    wanted = {"test": ("test", "val", "train"), "train": ("train", "val", "test")}
    if asked.split is not None:
        if (found := _called(asked, asked.split, splits)) is not None:
            return found
        raise InputError(f"{asked.shown}: has no split {asked.split!r}; it has {', '.join(splits)}")
    if asked.beside is not None:
        return _beside(asked, asked.beside, splits)
    for part in wanted[asked.part]:
        if (found := _of_part(asked, part, splits)) is not None:
            return found
    if len(splits) > 1:
        raise InputError(
            f"{asked.shown}: has the splits {', '.join(splits)}, and none is called train, val or "
            "test; add ?split=NAME to its name"
        )
    return splits[0]


def _called(asked: Asked, name: str, splits: list[str]) -> str | None:
    """The split of a name, or else the one that means the same part."""
    part = part_of(name)
    return name if name in splits else part and _of_part(asked, part, splits)


def _of_part(asked: Asked, part: str, splits: list[str]) -> str | None:
    found = [name for name in splits if part_of(name) == part]
    if len(found) > 1:
        raise InputError(
            f"{asked.shown}: its splits {' and '.join(found)} could both be meant by {part}; add "
            "?split=NAME to its name"
        )
    return found[0] if found else None


def _beside(asked: Asked, images: str, splits: list[str]) -> str:
    """The split of masks that belongs to the one that their images are read from."""
    if not images and len(splits) == 1:
        return splits[0]
    if images and (found := _called(asked, images, splits)) is not None:
        return found
    why = f"no split {images!r}, which the images are from" if images else "several splits"
    raise InputError(
        f"{asked.shown}: has {why} (it has {', '.join(splits)}); add ?split=NAME to its name for "
        "the masks of these images"
    )


def column(asked: Asked, kind: str, names: list[str], *, needed: bool) -> str | None:
    """The column of a kind: the one asked for, or the one of its usual names that is there.

    Raises:
        InputError: it is needed and there is none, or several could be meant.
    """
    if (wanted := asked.columns.get(kind)) is not None:
        found = [name for name in names if name == wanted or name == wanted.lower()]
    else:
        found = [name for usual in COLUMNS[kind] for name in names if name.lower() == usual]
    if len(found) > 1 and wanted is None:
        raise ambiguous(asked, kind, found)
    if not found and (needed or wanted is not None):
        raise InputError(
            f"{asked.shown}: has no column {wanted or kind}; it has {', '.join(names) or 'none'}; "
            f"add ?{kind}=COLUMN to its name"
        )
    return found[0] if found else None


def ambiguous(asked: Asked, kind: str, found: Sequence[str]) -> InputError:
    """The error of several columns that could be meant."""
    return InputError(
        f"{asked.shown}: the columns {' and '.join(found)} could both be the {kind}; add "
        f"?{kind}=COLUMN to its name"
    )


def as_text(value: Any, shown: str, key: str = "label") -> str | None:
    """A value of a table or of JSON as a text, a whole number without a point; None for none.

    Raises:
        InputError: a list, say.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | int | float):
        raise InputError(f"{shown}: {key} is {value!r}; must be a text or a number")
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def class_names_beside(place: Path) -> list[str] | None:
    """Names of classes in the order of their numbers, from classes.txt beside a source.

    None also where labels.txt holds the labels of images: numbers, or a name more than once.

    Raises:
        InputError: a name stands twice.
    """
    folder = place if place.is_dir() else place.parent
    file = next((folder / name for name in CLASSES if (folder / name).is_file()), None)
    if file is None:
        return None
    text = file.read_text(encoding="utf-8-sig", errors="replace").rstrip()
    found = [plain(line.strip()) for line in text.splitlines()]  # a number is a line
    given = [name for name in found if name]
    twice = next((name for name, count in Counter(given).items() if count > 1), None)
    if file.name == CLASSES[-1] and (twice or all(name.isdecimal() for name in given)):
        log.info("%s: is taken for labels of images, not for names of classes", file)
        return None
    if twice:
        raise InputError(f"{file}: has the name {twice!r} twice; must have each name once")
    return found


def named(label: str, names: list[str] | None, shown: str) -> str | None:
    """The class that a number means where names are known; any other label is its own name.

    None for a number below 0, which says that there is no label.

    Raises:
        InputError: a number without a name.
    """
    label = label.strip()
    if names is None or not (label.isdecimal() or _NUMBER.fullmatch(label)):
        return label
    if not label.isdecimal() and label in names:
        return label
    number = int(label.partition(".")[0])
    if number < 0:
        return None
    if number >= len(names):
        raise InputError(
            f"{shown}: label {label}, but there are {len(names)} class names; must be 0 to "
            f"{len(names) - 1}"
        )
    if not names[number]:
        raise InputError(f"{shown}: label {label}, but that line of the class names is blank")
    return names[number]
