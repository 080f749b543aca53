"""A tuning run as it is now, read from its folder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from refocus.app.looks import drawn, look
from refocus.data.images import read_image
from refocus.files import read_json
from refocus.records import read_lines
from refocus.runs import SELECTION
from refocus.tuning import recipe
from refocus.tuning.selection import from_json
from refocus.vit.loading import load

_SHOWN = 4  # maps that change while a model is tuned


class Progress:
    """Losses by epoch, and the maps of four validation images."""

    def __init__(self, folder: Path) -> None:
        """folder: of a run of `refocus tune`, which need not be complete."""
        self.folder = folder
        self._maps: list[tuple[np.ndarray, str]] = []
        self._written = -1  # when the checkpoint was, whose maps these are; 0: the original
        self._model: nn.Module | None = None

    def losses(self) -> dict[str, list[float]]:
        """Title, training or validation -> loss of each epoch that is done."""
        lines = list(read_lines(self.folder / "history.jsonl"))
        return {
            "training": [x["train"]["loss"] for x in lines],
            "validation": [x["validation"]["loss"] for x in lines],
        }

    def maps(self) -> list[tuple[np.ndarray, str]]:
        """Overlay and prediction of each image, of the weights of the last whole epoch.

        Before that of the original.
        """
        checkpoint = self.folder / "checkpoints" / "last.pt"
        if not (self.folder / SELECTION).exists():
            return []
        written = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        if written != self._written:
            self._maps = self._looks(checkpoint if written else None)
            self._written = written
        return self._maps

    def _looks(self, checkpoint: Path | None) -> list[tuple[np.ndarray, str]]:
        if self._model is None:
            self._model = load(recipe.recipe_of(self.folder).model)
        if checkpoint is not None:
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
            self._model.load_state_dict(content["model"])
        found = []
        for sample in from_json(read_json(self.folder / SELECTION)).select[:_SHOWN]:
            seen = look(self._model, read_image(sample.image))
            share = seen.shares[seen.explained]
            found.append((drawn(seen, 0.0, 0.6), f"{seen.explained} ({share:.0%})"))
        return found
