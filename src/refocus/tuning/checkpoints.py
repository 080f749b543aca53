"""What an interrupted run needs to resume.

It is written whole or not at all, and read without unpickling code.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from refocus import fingerprints
from refocus.data.folders import name_by_folders
from refocus.errors import InputError, first_line
from refocus.files import read_json, replacing, write_text
from refocus.records import drop_partial_line, from_json, read_lines, write_line
from refocus.tuning.recipe import recipe_of
from refocus.vit.loading import reading_digest, weights_digest


@dataclass(frozen=True)
class Position:
    """The last whole epoch, the best one so far and its validation loss; -1 before the first."""

    epoch: int
    best: int
    loss: float


@dataclass(frozen=True)
class Epoch:
    """One line of `history.jsonl`: the rate, and the mean of each term."""

    epoch: int
    lr: float
    train: dict[str, float]
    validation: dict[str, float]


def base_changed(run: Path, base: nn.Module) -> bool:
    """Whether the model that a run started from has other weights or preprocessing today.

    base: given the names of the run's class folders where it carries none, as the run did.
    """
    kept = run / fingerprints.IDENTITY  # not in runs of earlier versions
    known = read_json(kept) if kept.exists() else None
    if not isinstance(known, dict):
        return False
    today = {fingerprints.WEIGHTS: weights_digest(base)}
    with suppress(InputError):  # the folders are gone, and with them the names
        name_by_folders(base, recipe_of(run).images)
        today[fingerprints.READING] = reading_digest(base)
    return any(known.get(part, now) != now for part, now in today.items())


class Checkpoint:
    """Weights, optimizer, schedule, RNG and position in one file.

    It is read back with `weights_only=True`.
    """

    def __init__(self, model: nn.Module, optimizer: Any, schedule: Any) -> None:
        self.parts = {"model": model, "optimizer": optimizer, "schedule": schedule}

    def write(self, path: Path, position: Position) -> None:
        """Write the file, whole or not at all."""
        content = {name: part.state_dict() for name, part in self.parts.items()}
        content["rng"] = torch.get_rng_state()
        content["cuda_rng"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        with replacing(path) as partial, partial.open("wb") as file:
            torch.save({**content, "position": asdict(position)}, file)

    def read(self, path: Path) -> Position:
        """Put everything back where it was, and give the position.

        Raises:
            InputError: not a checkpoint, cut off, or of another model or optimizer.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what torch warns of becomes the error below
                content = torch.load(path, map_location="cpu", weights_only=True)
            position = from_json(content["position"], Position, path)
            for name, part in self.parts.items():
                part.load_state_dict(content[name])
            torch.set_rng_state(content["rng"])
            # of as many devices as there are now
            for device, state in zip(range(torch.cuda.device_count()), content["cuda_rng"]):  # noqa: B905
                torch.cuda.set_rng_state(state, device)
        # a damaged file raises anything: of zipfile, pickle, torch and the optimizer
        except Exception as error:
            raise InputError(
                f"{path}: not a checkpoint of this run ({first_line(error)}); remove it, and the "
                "run begins again with its first epoch"
            ) from error
        return position


def best_weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """The weights of the best epoch.

    Raises:
        InputError: missing, cut off, or not those of `model`.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not readable weights ({first_line(error)}); remove the folder "
            f"{path.parent}, and the run starts again from the first epoch"
        ) from error
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    if {name: value.shape for name, value in found.items()} != wanted:
        raise InputError(f"{path}: weights of another model; remove the folder {path.parent}")
    return found


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """A file that is either the old or the new one, whole."""
    with replacing(path) as partial:
        write(partial)


def keep_epochs(history: Path, last: int) -> None:
    """Drop lines of epochs that the checkpoint does not hold.

    A crash between the two writes leaves such lines.
    """
    drop_partial_line(history)
    every = [from_json(line, Epoch, history) for line in read_lines(history)]
    lines = [line for line in every if line.epoch <= last]
    if len(lines) < len(every):
        text = io.StringIO()
        for line in lines:
            write_line(text, line)
        write_text(history, text.getvalue())
