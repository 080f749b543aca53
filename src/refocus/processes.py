"""Several processes on one list: which am I, and wait for the others.

Started by `torchrun` or `accelerate launch`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from refocus.errors import InputError


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


def _said(name: str, default: int) -> int:
    """A number that torchrun puts into the environment."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"environment variable {name}={text!r}: must be a number; unset it")
    return int(text)
