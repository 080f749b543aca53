"""What an interrupted run needs to go on: written whole or not at all, read without unpickling
code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refocus.records import drop_partial_line, read_lines, write_line


class Checkpoint:
    """Weights, optimizer, schedule, RNG and position in one file, read back with
    `weights_only=True`.
    """

    def __init__(self, model: nn.Module, optimizer: Any, schedule: Any) -> None:
        self.parts = {"model": model, "optimizer": optimizer, "schedule": schedule}

    def write(self, path: Path, position: dict[str, Any]) -> None:
        content = {name: part.state_dict() for name, part in self.parts.items()}
        content["rng"] = torch.get_rng_state()
        content["cuda_rng"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        replace_file(path, lambda partial: torch.save({**content, "position": position}, partial))

    def read(self, path: Path) -> dict[str, Any]:
        content = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(content[name])
        torch.set_rng_state(content["rng"])
        if content["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(content["cuda_rng"])
        return content["position"]


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """A file that is either the old or the new one, whole."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    os.replace(partial, path)


def keep_epochs(history: Path, last: int) -> None:
    """Drop lines of epochs that the checkpoint does not hold, as a crash between the two writes
    leaves them.
    """
    drop_partial_line(history)
    lines = [line for line in read_lines(history) if line["epoch"] <= last]
    with history.open("w") as file:
        for line in lines:
            write_line(file, line)
