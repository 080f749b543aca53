"""Several processes on one list: who am I, and wait for the others. Started by `torchrun` or `accelerate launch`."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any


class Processes:
    """rank, count, and whether this is the first. Alone, waiting does nothing and nothing is started.

    cpu: whether the work runs on the CPU; it decides how the processes talk to each other.
    """

    def __init__(self, *, cpu: bool) -> None:
        self._state: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            self._state = PartialState(cpu=cpu, timeout=timedelta(days=1))  # one may have far more left to do than another
        self.rank = self._state.process_index if self._state else 0
        self.count = self._state.num_processes if self._state else 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        if self._state:
            self._state.wait_for_everyone()
