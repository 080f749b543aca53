"""The frozen records that cross modules, and JSON lines in and out. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from refocus.errors import InputError, first_line

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
_SUM = "sum"  # key of a line's checksum, by which a record that was changed by hand is noticed
_SUMMED = re.compile(rb', "sum": "([0-9a-f]{8})"}\s*$')


@dataclass(frozen=True, eq=False)  # == of tensors is no answer of yes or no
class Explanation:
    """What `refocus.explain` returns; all tensors are detached.

    logits: `[B, K]`. relevance: `[B, H, W]`, upsampled and min-max normalized per image to [0, 1].
    patches: `[B, h, w]`, the raw relevance of each patch (>= 0). targets: `[B]`, the class each map
        explains, or the score where a function of the logits was explained. covered: (rows,
        columns) of pixels, from the top left, that the patches cover. The model does not see
        pixels beyond them (of 384 and patches of 14 the last 6), where relevance is 0.
    """

    logits: Tensor
    relevance: Tensor
    patches: Tensor
    targets: Tensor
    covered: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image file, with its foreground mask where there is one."""

    image: Path
    label: int
    mask: Path | None = None
    also: tuple[int, ...] = ()  # further labels that count as right
    inverted: bool = False  # the mask's file marks the background


@dataclass(frozen=True, slots=True)
class Prediction:
    """One model's answer on one image: class indices, best first, and softmax shares."""

    image: str  # path below the suite's folder, so that records of two machines compare
    label: int  # class index of the true class
    top5: tuple[int, ...]  # class indices, best first
    confidence: float  # softmax share of the first of top5
    true_confidence: float | None = None  # softmax share of `label`
    also: tuple[int, ...] = ()  # further class indices that count as right

    @property
    def right(self) -> bool:
        """Is the first answer right?"""
        return self.top5[0] == self.label or self.top5[0] in self.also

    @property
    def right5(self) -> bool:
        """Is one of the first five answers right?"""
        return self.label in self.top5 or not set(self.also).isdisjoint(self.top5)


@dataclass(frozen=True, slots=True)
class MapRecord:
    """How one model's map of one image fits the mask, and the model.

    The first three numbers are None where the model's crop shows nothing of the object, or the map
    has no relevance.
    """

    image: str  # path below the suite's folder
    background_share: float | None  # share of the raw relevance on the background
    pointing: float | None  # 1 where the maximum of the map lies on the object, else 0
    segmentation: tuple[float, ...] | None  # 7 numbers that add up (`segmentation_counts`)
    insertion: float | None = None  # area under the curve in [0, 1], where it was measured
    deletion: float | None = None  # likewise


@dataclass(frozen=True)
class CueDecision:
    """One model's answer on one cue-conflict stimulus; all three are names of the mapping."""

    image: str  # path below the suite's folder
    shape: str  # class of the shape, from the file's name
    texture: str  # class of the texture, likewise
    decision: str  # class that the model names


@dataclass(frozen=True)
class ProbeRecord:
    """One model's numbers on one image under one probe."""

    image: str  # path below the folder of images
    values: Mapping[str, Sequence[float | None]]  # series -> one number for each level


@dataclass(frozen=True)
class Unreadable:
    """Stands in place of any record where the image, or its mask, cannot be read."""

    image: str  # path below the suite's folder
    unreadable: str  # why


@dataclass(frozen=True)
class Records(Generic[T]):
    """Records of one stage, in the order of the images."""

    rows: list[T]
    unreadable: dict[str, str]  # image -> why


def to_json(record: Any) -> Any:
    """A record, or a container of records, as what `json` writes.

    Dictionaries, lists, strings and numbers. Fields that have their default are written as well.
    """
    if is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(value) for value in record]
    if isinstance(record, Path):
        return str(record)
    return msgspec.to_builtins(record)


def from_json(content: Any, kind: type[T], source: str | Path) -> T:
    """What `to_json` made, back as a record of `kind`; every type is checked.

    Raises:
        InputError: another shape; names `source` (a file, say) and the place in it.
    """
    try:
        return msgspec.convert(content, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InputError(f"{source}: not what refocus writes ({first_line(error)})") from error


def decode(content: bytes) -> Any:
    """What JSON holds, checked strictly.

    But for file names that are not UTF-8, which `json` writes as lone surrogates.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is none.
    """
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        if "surrogate" not in str(error):
            raise
        return json.loads(content, parse_constant=_no_number)


def _no_number(token: str) -> Any:
    raise ValueError(f"{token} is no JSON")


def write_line(file: Any, record: Any) -> None:
    """Append one record as a JSON line with its checksum; NaN is an error, not a token."""
    text = json.dumps(to_json(record), allow_nan=False)
    file.write(f'{text[:-1]}, "{_SUM}": "{_checksum(text.encode())}"}}\n')


@contextmanager
def appending(path: Path) -> Iterator[Any]:
    """A file of records to append to; an error of the disk names it."""
    try:
        with path.open("a", encoding="utf-8") as file:
            yield file
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _checksum(text: bytes) -> str:
    return blake2b(text, digest_size=4).hexdigest()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Records of a JSONL file, none where there is no file; of two of one image the later counts.

    Raises:
        InputError: not a regular file, or a line that is no JSON object; names its number.
    """
    lines: dict[str | int, dict[str, Any]] = {}
    for number, record in enumerate(each_line(path)):
        image = record.get("image")
        lines[image if isinstance(image, str) else number] = record
    return list(lines.values())


def each_line(path: Path) -> Iterator[dict[str, Any]]:
    """The same one by one, all that there are; the file may have two of one image.

    Raises:
        InputError: as `read_lines`.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise InputError(f"{path}: not a regular file; must be a file with one JSON object a line")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _object(line, f"{path}, line {number}")


def _object(line: bytes, where: str) -> dict[str, Any]:
    """A line's record; earlier versions wrote no checksum."""
    try:
        if found := _SUMMED.search(line):
            line = line[: found.start()] + b"}"
            if _checksum(line).encode() != found[1]:
                raise ValueError("it was changed since")
        return msgspec.convert(decode(line), dict[str, Any])
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InputError(
            f"{where}: not what refocus writes ({first_line(error)}); remove the line, and what it "
            "held is computed again"
        ) from error


def typed(lines: Iterable[dict[str, Any]], kind: type[T], source: str | Path) -> Records[T]:
    """Lines of one stage as records of `kind`; `source` is named where one has another shape."""
    return told_apart(record_of(line, kind, source) for line in lines)


def record_of(line: dict[str, Any], kind: type[T], source: str | Path) -> T | Unreadable:
    """A line as a record of `kind`, or as one that says why there is none."""
    if "unreadable" in line:
        return from_json(line, Unreadable, source)
    return from_json(line, kind, source)


def told_apart(found: Iterable[T | Unreadable]) -> Records[T]:
    """Records, and the images without one."""
    rows: list[T] = []
    unreadable: dict[str, str] = {}
    for record in found:
        if isinstance(record, Unreadable):
            unreadable[record.image] = record.unreadable
        else:
            rows.append(record)
    return Records(rows, unreadable)


def read_records(path: Path, kind: type[T]) -> Records[T]:
    """Records of one stage from their file.

    Raises:
        InputError: no such file (which is an error, not an empty answer), or a line of another
            shape.
    """
    if not path.exists():
        raise InputError(f"{path}: is missing; evaluate again into a new folder")
    found: dict[str | int, T | Unreadable] = {}
    for number, line in enumerate(each_line(path)):
        image = line.get("image")
        found[image if isinstance(image, str) else number] = record_of(line, kind, path)
    return told_apart(found.values())


def drop_partial_line(path: Path) -> None:
    """Cut off what a crash left behind the last whole line, so that appending can continue."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
