"""The frozen records that cross modules, and JSON lines in and out. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from refocus.errors import InputError, first_line

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Explanation:
    """What `refocus.explain` returns; all tensors are detached.

    logits: `[B, K]`. relevance: `[B, H, W]`, upsampled and min-max normalized per image to [0, 1].
    patches: `[B, h, w]`, the raw relevance of each patch (>= 0). targets: `[B]`, the class each map
        explains, or the score where a function of the logits was explained.
    """

    logits: Tensor
    relevance: Tensor
    patches: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Sample:
    """One labelled image file, with its foreground mask where there is one."""

    image: Path
    label: int
    mask: Path | None = None
    also: tuple[int, ...] = ()  # further labels that count as right
    inverted: bool = False  # the mask's file marks the background


@dataclass(frozen=True)
class Prediction:
    """One model's answer on one image: class indices, best first, and softmax shares."""

    image: str  # path below the suite's folder, so that records of two machines compare
    label: int
    top5: tuple[int, ...]
    confidence: float  # share of the first of top5
    true_confidence: float | None = None  # share of `label`
    also: tuple[int, ...] = ()  # further labels that count as right

    @property
    def right(self) -> bool:
        return self.top5[0] == self.label or self.top5[0] in self.also

    @property
    def right5(self) -> bool:
        return self.label in self.top5 or not set(self.also).isdisjoint(self.top5)


def to_json(record: Any) -> Any:
    """A record as what `json` writes: dictionaries, lists, strings and numbers."""
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
    """What JSON holds; strict, but for file names that are not UTF-8, which `json` writes as lone
    surrogates.

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
    """Append one record as a JSON line; NaN is an error, not a token."""
    file.write(
        json.dumps(record if isinstance(record, dict) else asdict(record), allow_nan=False) + "\n"
    )


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a JSONL file, none where there is no file; blank lines are passed over.

    Raises:
        InputError: not a regular file, or a line that is no JSON object; names its number.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise InputError(f"{path}: not a regular file; legal is one JSON object a line")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _object(line, f"{path}, line {number}")


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        return msgspec.convert(decode(line), dict[str, Any])
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InputError(
            f"{where}: not what refocus writes ({first_line(error)}); remove the line, and what it "
            "held is computed again"
        ) from error


def drop_partial_line(path: Path) -> None:
    """Cut off what a crash left behind the last whole line, so that appending can go on."""
    if path.exists():
        content = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
