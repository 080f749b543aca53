"""A run in an experiment tracker: losses, validation, the final table, maps before and after.

The trackers are accelerate's; each row of `TRACKERS` says what differs between them.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from refocus.data.images import read_image
from refocus.data.transforms import eval_image
from refocus.errors import InputError, Message, first_line
from refocus.processes import place
from refocus.records import Sample
from refocus.relevance.gae import explain
from refocus.runs import MODEL
from refocus.tuning.recipe import Recipe
from refocus.tuning.results import TuneResults
from refocus.tuning.selection import Selection
from refocus.vit.loading import load, preprocessing
from refocus.vit.own_models import code_of, tuned

log = logging.getLogger("refocus")

FOLDER = "track"  # of a run, where a tracker keeps its files in one
PROJECT = "refocus"
_SHOWN = 4  # images whose maps are logged
_DARK = 0.2  # what is left of a pixel without relevance
COLUMNS = (
    "share of tuned weights",
    "top-1, %",
    "lost at most, points",
    "swapped backgrounds, %",
    "gained at least, points",
)
Rows = list[list[float | str | None]]


@dataclass(frozen=True)
class Kind:
    """A tracker of accelerate.

    module: that has to be installed. options: of a run's folder -> what accelerate's class takes.
    picture, table: log one under a name; the first argument is accelerate's tracker.
    """

    module: str
    options: Callable[[Path], dict[str, Any]]
    picture: Callable[[Any, str, np.ndarray], None]
    table: Callable[[Any, str, Rows], None]


# --- what differs ---------------------------------------------------------------------------------


def _board_picture(tracker: Any, name: str, picture: np.ndarray) -> None:
    tracker.log_images({name: picture[None]}, dataformats="NHWC")


def _board_table(tracker: Any, name: str, rows: Rows) -> None:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    text = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
    tracker.log({name: text})


def _cell(value: float | str | None) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _wandb_picture(tracker: Any, name: str, picture: np.ndarray) -> None:
    tracker.log_images({name: [picture]})


def _wandb_table(tracker: Any, name: str, rows: Rows) -> None:
    tracker.log_table(name, columns=list(COLUMNS), data=rows)


def _trackio_picture(tracker: Any, name: str, picture: np.ndarray) -> None:
    import trackio

    tracker.log({name: trackio.Image(picture)})


def _trackio_table(tracker: Any, name: str, rows: Rows) -> None:
    import pandas
    import trackio

    tracker.log({name: trackio.Table(dataframe=pandas.DataFrame(rows, columns=list(COLUMNS)))})


def _mlflow_picture(_tracker: Any, name: str, picture: np.ndarray) -> None:
    import mlflow

    mlflow.log_image(picture, f"{name}.png")


def _mlflow_table(_tracker: Any, name: str, rows: Rows) -> None:
    import mlflow

    columns = zip(*rows, strict=True)
    mlflow.log_table(dict(zip(COLUMNS, map(list, columns), strict=True)), f"{name}.json")


TRACKERS: dict[str, Kind] = {
    "tensorboard": Kind(
        "tensorboard",
        lambda run: {"run_name": PROJECT, "logging_dir": str(run / FOLDER)},
        _board_picture,
        _board_table,
    ),
    "trackio": Kind(
        "trackio",
        lambda run: {"run_name": PROJECT, "name": run.name},
        _trackio_picture,
        _trackio_table,
    ),
    "wandb": Kind(
        "wandb",
        lambda run: {"run_name": PROJECT, "name": run.name},
        _wandb_picture,
        _wandb_table,
    ),
    "mlflow": Kind(
        "mlflow",
        lambda run: {"experiment_name": PROJECT, "run_name": run.name},
        _mlflow_picture,
        _mlflow_table,
    ),
}


# --- one way for all ------------------------------------------------------------------------------


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that there is not, before anything is done.

    Raises:
        InputError: an unknown name, or its package is not installed.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise InputError(f"‹track› {name}: choose one of {', '.join(TRACKERS)}")
    if find_spec(TRACKERS[name].module) is None:
        raise InputError(
            f"‹track› {name}: {TRACKERS[name].module} is not installed; run pip install "
            f"{TRACKERS[name].module}, or pip install 'refocus-vit[track]' for tensorboard and "
            "trackio"
        )


def say_untracked(name: str | None) -> None:
    """Say that a run that is complete already sends its tracker nothing."""
    if name is not None:
        log.info(Message(f"‹track› {name}: the run is already complete; nothing is logged"))


class Tracking:
    """What a run tells its tracker. This one has none, and does nothing."""

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Losses of an epoch, a line of `history.jsonl`."""

    def results(self, results: TuneResults) -> None:
        """What was found, with maps of the original and the kept model."""

    def finish(self) -> None:
        """Close it."""

    def then(self, on_epoch: Callable[[dict[str, Any]], None] | None) -> Callable[..., None]:
        """`epoch`, and after it a function of the caller's."""

        def each(line: dict[str, Any]) -> None:
            self.epoch(line)
            if on_epoch:
                on_epoch(line)

        return each


class Tracker(Tracking):
    """Sends what a run finds to a tracker; one that fails on the way costs the run nothing.

    name: a row of `TRACKERS`. run: the folder of the run. samples: whose maps are shown.
    """

    def __init__(self, name: str, run: Path, recipe: Recipe, samples: list[Sample]) -> None:
        """Start it.

        Raises:
            InputError: it cannot be started, such as without an account.
        """
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        self.name, self.kind, self.run = name, TRACKERS[name], run
        self.recipe, self.samples = recipe, samples
        try:
            self.tracker: Any = LOGGER_TYPE_TO_CLASS[name](**self.kind.options(run))
            if hasattr(self.tracker, "start"):  # earlier versions start when they are made
                self.tracker.start()
            self.tracker.store_init_configuration(_plain(recipe))
        except Exception as error:  # what they raise differs
            raise InputError(f"‹track› {name}: cannot be started ({first_line(error)})") from error

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Losses of an epoch, a line of `history.jsonl`."""
        values = {"lr": float(line["lr"])}
        for part in ("train", "validation"):
            for term, value in line.get(part, {}).items():
                values[f"{part}/{term}"] = float(value)
        self._try(lambda: self.tracker.log(values, step=int(line["epoch"])))

    def results(self, results: TuneResults) -> None:
        """The candidates as a table, what was kept, and maps before and after."""
        rows: Rows = [
            [c.share, c.in_domain.model.value, c.most_lost, c.swapped.model.value, c.least_gained]
            for c in results.candidates
        ]
        kept: dict[str, float] = {"kept/share": float(results.chosen_share)}
        for c in results.candidates:
            if c.share == results.chosen_share:
                kept["kept/top-1"] = c.in_domain.model.value or 0.0
                kept["kept/swapped backgrounds"] = c.swapped.model.value or 0.0
        self._try(lambda: self.tracker.log(kept))
        if rows:
            self._try(lambda: self.kind.table(self.tracker, "candidates", rows))
        self._try(self._maps)

    def _maps(self) -> None:
        """The image, the original's map of it and the kept model's, side by side."""
        ref = str(self.recipe.model)
        kept = tuned(self.run / MODEL, code_of(ref) if ref.startswith("py:") else None)
        models = [load(ref).eval(), load(kept).eval()]
        for number, sample in enumerate(self.samples[:_SHOWN]):
            self.kind.picture(self.tracker, f"maps/{number}", _strip(models, sample))

    def finish(self) -> None:
        """Close it."""
        self._try(self.tracker.finish)

    def _try(self, send: Callable[[], Any]) -> None:
        try:
            send()
        except Exception as error:  # a full disk or a lost connection there; the run goes on
            log.warning("%s: not logged (%s)", self.name, first_line(error))


@contextmanager
def tracking(
    name: str | None, run: Path, recipe: Recipe, selection: Selection, *, new: bool = False
) -> Iterator[Tracking]:
    """The tracker of a run, in the first process alone; closed whatever happens.

    new: the run folder was just made, and is removed where the tracker cannot be started.
    """
    if name is None or not place().first:
        yield Tracking()
        return
    try:
        tracker = Tracker(name, run, recipe, selection.select)
    except InputError:
        if new:
            shutil.rmtree(run, ignore_errors=True)
        raise
    try:
        yield tracker
    finally:
        tracker.finish()


def _plain(recipe: Recipe) -> dict[str, Any]:
    """A recipe in values that every tracker takes; weights by their terms' names."""
    found: dict[str, Any] = {}
    for name, value in recipe.to_dict().items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": float(v) for key, v in value.items()}
        else:
            found[name] = value if isinstance(value, bool | int | float) else str(value)
    return found


def _strip(models: Sequence[nn.Module], sample: Sample) -> np.ndarray:
    """An image, and beside it as lit by each model's map of its class, uint8 `[H, W, 3]`."""
    picture = read_image(sample.image)
    tiles: list[np.ndarray] = []
    for model in models:
        config = preprocessing(model)
        pixels = eval_image(model)(picture)[None]
        lit = explain(model, pixels, torch.tensor([sample.label])).relevance[0].numpy()[..., None]
        seen = pixels[0].permute(1, 2, 0).numpy() * config["std"] + config["mean"]
        tiles += [] if tiles else [seen]
        tiles.append(seen * (_DARK + (1 - _DARK) * lit))
    return np.asarray((255 * np.concatenate(tiles, axis=1).clip(0, 1)).round().astype(np.uint8))
