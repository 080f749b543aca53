"""Several processes on one list: who am I, and wait for the others. Started by `torchrun` or `accelerate launch`."""

from __future__ import annotations

import os
from typing import Any


class Processes:
    """rank, count, and whether this is the first. Alone, waiting does nothing and nothing is started."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self._state: Any = None
        if self.count > 1:
            from accelerate import PartialState

            self._state = PartialState()
        self.rank = self._state.process_index if self._state else 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        if self._state:
            self._state.wait_for_everyone()
