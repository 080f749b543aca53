"""Several processes on one list: who am I, and wait for the others.

Started by `torchrun` or `accelerate launch`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from refocus.errors import InputError


def started_several() -> bool:
    """Whether torchrun or accelerate launch started this process as one of several.

    Raises:
        InputError: the environment says a count that is none.
    """
    return _said("WORLD_SIZE", 1) > 1


def rank() -> int:
    """Which of several processes this is; 0 where it is alone."""
    return _said("RANK", 0)


def _said(name: str, default: int) -> int:
    """A number that torchrun puts into the environment."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"environment variable {name}={text!r}: must be a number; unset it")
    return int(text)


class Processes:
    """rank, count, and whether this is the first.

    Alone, waiting does nothing and nothing is started.

    cpu: whether the work runs on the CPU; it decides how the processes talk to each other.
    """

    def __init__(self, *, cpu: bool) -> None:
        self._state: Any = None
        if started_several():
            from accelerate import PartialState

            self._state = PartialState(
                cpu=cpu, timeout=timedelta(days=1)
            )  # one may have far more left to do than another
        self.rank = self._state.process_index if self._state else 0
        self.count = self._state.num_processes if self._state else 1

    @property
    def first(self) -> bool:
        """Whether this is the process that prepares and finishes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self._state:
            self._state.wait_for_everyone()


_POLL = 5  # seconds between two looks for what another process has finished


@dataclass(frozen=True)
class Place:
    """This process among those that share a study: it takes every `count`-th run.

    local: which of those on its machine it is.
    """

    rank: int = 0
    count: int = 1
    local: int = 0


def take_place() -> Place:
    """Read what torchrun says, and forget it.

    Each process does whole runs, so nothing below may join their gradients.
    """
    place = Place(rank(), _said("WORLD_SIZE", 1), _said("LOCAL_RANK", 0))
    for name in (
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    ):
        os.environ.pop(name, None)
    return place


def wait_for(file: Path) -> None:
    """Until another process has written it."""
    while not file.exists():
        time.sleep(_POLL)
