"""Where a run keeps what: `refocus tune` writes RUN, `refocus run` writes RUN/tune."""

from __future__ import annotations

import os
from pathlib import Path

from refocus.errors import InputError

TUNE = "tune"  # folder of the tuning run below that of `refocus run`
MODEL = "model"  # folder of the weights that were kept, below that of a tuning run
SELECTION, RECIPE = "selection.json", "recipe.json"
REPORTED = "report.json"  # says which folder of a run its report.html was made of
MANIFEST = "manifest.json"  # says that a folder is complete


def tuned(folder: Path) -> Path | None:
    """The folder of `refocus tune` that this is, or that this folder of `refocus run` holds.

    None: it is neither.
    """
    # os.path: a name of a model may be no legal path
    places = (folder, folder / TUNE)
    return next((place for place in places if os.path.isfile(place / SELECTION)), None)


def finished(run: Path) -> Path:
    """The folder of a tuning run that is complete, of `refocus tune` or inside of `refocus run`'s.

    Raises:
        InputError: it is neither, or not complete.
    """
    folder = tuned(run)
    if folder is None:
        raise InputError(f"‹run› {run}: not a finished run of `refocus tune` or `refocus run`")
    if not (folder / MANIFEST).exists():
        raise InputError(f"‹run› {run}: this run is not complete; {_remedy(run, folder)}")
    return folder


def model_in(folder: Path) -> Path:
    """The model folder of a run; any other folder as it is.

    Raises:
        InputError: the run has not come to its model yet.
    """
    run = tuned(folder)
    if run is None or os.path.isfile(folder / "config.json"):
        return folder
    if not (run / MODEL).is_dir():
        if (run / MANIFEST).exists():
            raise InputError(
                f"‹model› {folder}: {run / MODEL} is gone; the same `refocus "
                f"{_maker(folder, run)}` again makes it from the run's checkpoints"
            )
        raise InputError(f"‹model› {folder}: this run has no model yet; {_remedy(folder, run)}")
    return run / MODEL


def _remedy(run: Path, folder: Path) -> str:
    return f"resume it first, with `refocus {_maker(run, folder)}`"


def _maker(run: Path, folder: Path) -> str:
    return "tune" if folder == run else "run"
