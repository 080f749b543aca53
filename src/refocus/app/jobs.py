"""Long work of the app: commands of refocus as processes, which go on when a browser tab is closed
and end with the app.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from refocus import outputs
from refocus.app.looks import drawn, look
from refocus.data.images import read_image
from refocus.errors import InputError
from refocus.records import read_lines
from refocus.tuning import recipe
from refocus.tuning.selection import from_json
from refocus.vit.loading import load

_SHOWN = 4  # maps that change while a model is tuned
_WAIT = 20  # seconds for a process to end by itself


@dataclass
class Job:
    """One command. folder: what it writes. last: its last words, for people."""

    command: list[str]
    folder: Path
    process: Any = None
    last: str = ""
    _lines: list[str] = field(default_factory=list)

    def start(self) -> None:
        self._lines.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "refocus.cli", *self.command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def _listen(self, process: Any) -> None:
        with process.stderr:
            for line in process.stderr:
                if line.startswith(("error:", "notice:", "warning:")):
                    self._lines.append(line.strip())

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def failed(self) -> bool:
        return self.process is not None and self.process.poll() not in (None, 0, -15)

    @property
    def complete(self) -> bool:
        return not self.running and (self.folder / outputs.MANIFEST).exists()

    @property
    def words(self) -> str:
        return next((line for line in reversed(self._lines) if line.startswith("error:")), "")

    def stop(self) -> None:
        if self.running:
            self.process.terminate()
            try:
                self.process.wait(_WAIT)
            except subprocess.TimeoutExpired:
                self.process.kill()


def command_line(command: str, **given: Any) -> list[str]:
    """A command of refocus and its parameters as its words; True is a switch."""
    words = [command]
    for name, value in given.items():
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [str(value)]
    return words


class Jobs:
    """All jobs of an app by name, and the runs that earlier ones left in its work folder."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def runs(self) -> list[str]:
        """The tuning runs in the work folder, the newest first; one that was just started has no
        file there yet.
        """
        found = {file.parent.name for file in self.work.glob("run-*/recipe.json")}
        return sorted(
            found | {name for name in list(self.jobs) if name.startswith("run-")}, reverse=True
        )

    def running_run(self) -> str | None:
        return next(
            (name for name in self.runs() if name in self.jobs and self.jobs[name].running), None
        )

    def __contains__(self, name: str) -> bool:
        return name in self.jobs or name in self.runs()

    def __getitem__(self, name: str) -> Job:
        if name not in self.jobs and name in self.runs():
            return Job([], self.work / name)  # nothing of it runs here
        return self.jobs[name]

    def start(self, name: str, command: list[str], folder: Path) -> Job:
        with self._lock:
            if any(job.running for job in self.jobs.values()):
                raise InputError(
                    "another job is running; stop it first or wait: two would only slow each other"
                )
            self.jobs[name] = Job(command, folder)
            self.jobs[name].start()
            return self.jobs[name]

    def stop_all(self) -> None:
        for job in self.jobs.values():
            job.stop()


class Progress:
    """A tuning run as it is now: losses by epoch, and the maps of four validation images.

    Read from its folder alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._maps: list[tuple[np.ndarray, str]] = []
        self._written = -1  # when the checkpoint was, whose maps these are; 0: the original
        self._model: nn.Module | None = None

    def losses(self) -> dict[str, list[float]]:
        """ "training" and "validation" -> loss of each epoch that is done."""
        lines = list(read_lines(self.folder / "history.jsonl"))
        return {
            "training": [x["train"]["loss"] for x in lines],
            "validation": [x["validation"]["loss"] for x in lines],
        }

    def maps(self) -> list[tuple[np.ndarray, str]]:
        """Overlay and prediction of each image, of the weights of the last whole epoch; before that
        of the original.
        """
        checkpoint = self.folder / "checkpoints" / "last.pt"
        if not (self.folder / "selection.json").exists():
            return []
        written = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        if written != self._written:
            content = (
                torch.load(checkpoint, map_location="cpu", weights_only=True) if written else None
            )
            if self._model is None:
                self._model = load(recipe.recipe_of(self.folder).model)
            if content:
                self._model.load_state_dict(content["model"])
            found = []
            for sample in from_json(outputs.read_json(self.folder / "selection.json")).select[
                :_SHOWN
            ]:
                seen = look(self._model, read_image(sample.image))
                found.append(
                    (drawn(seen, 0.0, 0.6), f"{seen.explained} ({seen.shares[seen.explained]:.0%})")
                )
            self._maps, self._written = found, written
        return self._maps
