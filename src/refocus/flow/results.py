"""What `refocus run` finds: `run.json`, out and in. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from refocus.files import read_json
from refocus.records import from_json
from refocus.results import Audit, Evaluation
from refocus.runs import MODEL, TUNE
from refocus.tuning.results import TuneResults

RESULT, PAGE = "run.json", "index.html"
MASKS, AUDIT = "masks", "audit"  # folders below that of a run, beside `runs.TUNE`
SCHEMA = 1  # of run.json


@dataclass(frozen=True)
class Answer:
    """One of the three questions of a run."""

    question: str  # such as "Did tuning help?"
    answer: str  # a few words, such as "Yes"
    why: str  # the sentence that the answer rests on


@dataclass(frozen=True)
class MasksFound:
    """What became of the images where masks were found automatically."""

    made: int  # masks
    below: int  # of them scored too low to be used
    skipped: int  # images without one


@dataclass(frozen=True)
class RunResult:
    """What `refocus.run` returns and `run.json` holds."""

    model: str  # the one to use: tuned where that is advised, else as given
    ship: bool  # is the tuned one advised?
    answers: tuple[Answer, ...]  # relies on the background? did tuning help? ship it?
    masks: MasksFound | None  # None where masks were given
    audit: Audit  # of the model as it was given
    tuning: TuneResults  # the run, and what the do-no-harm rule says
    report: Evaluation  # before and after, on held-out images and the test sets
    folder: str  # where everything lies; `index.html` in it is the page
    schema: int = SCHEMA  # version of this file

    @property
    def page(self) -> Path:
        """The page that says it all."""
        return Path(self.folder) / PAGE


def read(folder: str | Path) -> RunResult:
    """The result of a finished run.

    Raises:
        InputError: there is none, or not such as refocus writes.
    """
    file = Path(folder) / RESULT
    found = from_json(read_json(file), RunResult, file)
    # it may have been moved, and with it the model that it made
    model = str(Path(folder) / TUNE / MODEL) if found.ship else found.model
    return replace(found, model=model, folder=str(folder))
