"""What a report is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from refocus.results import Evaluation, SuiteEntry
from refocus.tuning.recipe import Recipe
from refocus.tuning.results import TuneResults
from refocus.tuning.selection import Selection

LABELS = ("original", "tuned")
Suites = Mapping[str, SuiteEntry]


@dataclass(frozen=True)
class Tuning:
    """What a tuning run recorded of itself."""

    recipe: Recipe
    selection: Selection
    results: TuneResults
    probes: str  # its page of probes, or empty

    @property
    def unchanged(self) -> bool:
        """Whether the original was kept, so that there is nothing to compare."""
        return self.results.kept_original


@dataclass(frozen=True)
class Told:
    """What a report is about: an evaluation in its folder, and perhaps the run that it measures."""

    folder: Path
    evaluation: Evaluation
    tuning: Tuning | None
    changed: str = ""  # which model is another than the one that was measured

    @property
    def suites(self) -> Suites:
        """Name -> what was measured on it."""
        return self.evaluation.suites
