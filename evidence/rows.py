"""What one cell of the field leaves behind: a typed line from which every number is computed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from refocus.records import from_json, read_lines, to_json, write_line

END, WISE, SELECTED = "end", "half", "selected"
READINGS = (END, WISE, SELECTED)  # the last weights, 50/50 with the original, by development images


@dataclass(frozen=True)
class Cell:
    """One training run: what is trained, on which images, for how long, at which rate."""

    phase: str  # search, try or final
    data: str  # a row of `sources.DATA`
    method: str  # a row of `methods.METHODS`
    budget: str  # a row of `field.BUDGETS`
    images: int  # training images a class; 0: all of the pool
    classes: str  # all, or half: those that the draw takes
    draw: int  # seed of every random choice
    rate: float  # learning rate, or what takes its place


@dataclass(frozen=True)
class Passes:
    """Images that went forward through the network."""

    per_image: int  # in one step, for each image of the batch, with a teacher's
    batched: int  # images of all batches
    # through the network in training mode, as counted; newer runs of the product's loop have two
    # more, of the step that it tries first
    trained: int
    all: int  # as counted, with teachers, features, and the validation that the loop makes

    @property
    def training(self) -> int:
        """Those of the steps; of a method that only refits the last layer, all."""
        return self.per_image * self.batched or self.all


@dataclass(frozen=True)
class Answers:
    """Right answers on one test set: bits in the order of the file names, as hexadecimal digits."""

    files: str  # digest of the file names
    classes: dict[str, int]  # class folder -> images, in the order of the bits
    right: dict[str, str]  # reading -> bits


@dataclass(frozen=True)
class Development:
    """Top-1 in percent at one share of the way, on images as they are and on other backgrounds."""

    share: float
    plain: float
    swapped: float

    @property
    def score(self) -> float:
        """What rates and shares are chosen by: the mean of both."""
        return (self.plain + self.swapped) / 2


@dataclass(frozen=True)
class Row:
    """One cell and what came of it."""

    cell: Cell
    model: str  # digest of the base model's weights
    settings: dict[str, Any]  # everything else that decides the run
    used: str  # digest of the names of the training images
    used_count: int
    trained: list[str]  # class folders trained on
    steps: int
    passes: Passes
    seconds: float  # of training alone, by the clock
    cpu_seconds: float  # the same, of this process: what a busy machine does not change
    development: list[Development]  # none where training diverged
    shares: dict[str, float] = field(default_factory=dict)  # reading -> share of the way
    tests: dict[str, Answers] = field(default_factory=dict)  # final cells alone
    notes: dict[str, Any] = field(default_factory=dict)


# --- bits and digests -----------------------------------------------------------------------------


def pack(right: Sequence[bool]) -> str:
    """Bits as hexadecimal digits, the first image in the highest bit, zeros at the end."""
    return np.packbits(np.asarray(right, dtype=bool)).tobytes().hex()


def unpack(text: str, count: int) -> np.ndarray:
    """What `pack` made, bool `[count]`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:count].astype(bool)


def digest(names: Iterable[str]) -> str:
    """A short fingerprint of file names, whatever their order."""
    return blake2b("\n".join(sorted(names)).encode(), digest_size=8).hexdigest()


# --- files ----------------------------------------------------------------------------------------


def read(path: Path) -> list[Row]:
    """Rows of a JSONL file, also of a compressed one; none where there is no file."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [from_json(_plain(line), Row, path) for line in file]
    return [from_json(line, Row, path) for line in read_lines(path)]


def _plain(line: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(line)
    content.pop("sum", None)
    return content


def append(path: Path, row: Row) -> None:
    """One more row."""
    with path.open("a", encoding="utf-8") as file:
        write_line(file, row)


def compress(rows: Iterable[Row], path: Path) -> None:
    """Rows as a file to commit: the same bytes for the same rows."""
    text = "".join(json.dumps(to_json(row), sort_keys=True) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def every(files: Iterable[Path]) -> Iterator[Row]:
    """Rows of several files."""
    for file in files:
        yield from read(file)
