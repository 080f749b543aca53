"""Several processes on one list: which am I, and wait for the others.

Started by `torchrun` or `accelerate launch`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from refocus.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """This process among those that share the work; alone, waiting does nothing.

    local: which of those on its machine it is.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    _met: Any = field(default=None, repr=False, compare=False)  # of accelerate: the others

    @property
    def first(self) -> bool:
        """Whether this is the process that prepares and finishes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes are here, where they have met (`meet`)."""
        if self._met is not None:
            self._met.wait_for_everyone()

    def agreed(self, value: T) -> T:
        """The first process's value, in all of them."""
        if self._met is None:
            return value
        from accelerate.utils import broadcast_object_list

        held: T = broadcast_object_list([value], from_process=0)[0]
        return held

    def joined(self, values: list[T]) -> list[T]:
        """The lists of all processes, one after the other by rank, in all of them."""
        if self._met is None:
            return values
        from accelerate.utils import gather_object

        every: list[T] = gather_object(values)
        return every


def place() -> Place:
    """What torchrun or accelerate launch says, or the only place.

    Raises:
        InputError: the environment says a number that is none.
    """
    return Place(_said("RANK", 0), _said("WORLD_SIZE", 1), _said("LOCAL_RANK", 0))


def meet(*, cpu: bool) -> Place:
    """The same, connected with the others.

    cpu: whether the work runs on the CPU; it decides how the processes talk to each other.
    """
    if place().count == 1:
        return Place()
    from accelerate import PartialState

    # one may have far more left to do than another
    met = PartialState(cpu=cpu, timeout=timedelta(days=1))
    return Place(met.process_index, met.num_processes, met.local_process_index, met)


_SHARING: ContextVar[Place] = ContextVar("processes that share images")


def sharing() -> Place:
    """The processes that walk through images together (`shared`); alone outside of it."""
    return _SHARING.get(Place())


@contextmanager
def shared(out: Path, *, cpu: bool) -> Iterator[Path]:
    """Images that are walked through within (`evaluation.collect`) are shared by all processes.

    All of them run the same command on the same input, and each learns all answers, so the same
    numbers come out as of one process. The first writes into `out`, the others into folders that
    are thrown away.

    Args:
        out: where the command writes.
        cpu: whether the work runs on the CPU.
    """
    mine = meet(cpu=cpu)
    with nullcontext() if mine.first else tempfile.TemporaryDirectory(prefix="refocus-") as aside:
        before = _SHARING.set(mine)
        try:
            yield out if aside is None else Path(aside) / "out"
        finally:
            _SHARING.reset(before)


def take_place() -> Place:
    """Read what torchrun says, and forget it.

    Each process does whole runs, so nothing below may join their gradients.
    """
    mine = place()
    for name in (
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    ):
        os.environ.pop(name, None)
    return mine


_AHEAD = 8  # processes at most that read images, where nobody says how many


def workers_for(wanted: int | Literal["auto"], device: str) -> int:
    """How many processes read images ahead of a network.

    `auto` is 0 on a CPU, whose cores the network fills: a process would take time from it
    (docs/performance.md). On an accelerator it is a core each, but one, of this process's share of
    the machine, and at most 8.

    Args:
        wanted: a number, which is taken as it is, or "auto".
        device: the type of the network's device, such as "cuda".
    """
    if wanted != "auto":
        return wanted
    if device == "cpu":
        return 0
    return max(0, min(_AHEAD, _cores() // _said("LOCAL_WORLD_SIZE", 1) - 1))


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _said(name: str, default: int) -> int:
    """A number that torchrun puts into the environment."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"environment variable {name}={text!r}: must be a number; unset it")
    return int(text)
