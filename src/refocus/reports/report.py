"""`refocus report`: which folder it is, and its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from refocus import runs
from refocus.errors import InputError
from refocus.evaluation import cues
from refocus.evaluation.plan import CUES
from refocus.evaluation.stored import RESULTS
from refocus.probes import page as probe_page
from refocus.reports import before_after
from refocus.reports.settings import ReportSettings
from refocus.results import Evaluation
from refocus.settings import settings_of
from refocus.tuning.results import results_of
from refocus.vit.inputs import check_path, check_settings
from refocus.vit.loading import pick_device

_HOW_TO_SHOW = ("code", "device", "workers")  # settings that change no number


@dataclass(frozen=True)
class Report:
    """A page that was written, and the numbers on it (none on a page of probes)."""

    page: Path
    evaluation: Evaluation | None
    unchanged: bool = False  # is it about a run that kept the original model?
    records: Path | None = None  # folder of the evaluation that the numbers come from


def report(run: str | Path, settings: ReportSettings | None = None) -> Report:
    """Write one self-contained page of what tuning changed.

    It is `run/report.html`; beside it lie report.md, report.csv and classes.csv. For a tuning run,
    original and tuned model are measured into `run/proof` first, of a run that kept the original
    that model alone; what lies there already is not computed again. Probes in `run/probes` are
    linked. Of `refocus.run` the tuning run is `run/tune`, and the page lies there.

    Args:
        run: folder of `tune`, of `run`, of `evaluate`, or of `probe` (whose own page is written
            anew).
        settings: how to measure; without it, as `refocus report` does.

    Returns:
        The page that was written, and the numbers on it.

    Raises:
        InputError: another folder, or settings of how to measure for one that is measured already.

    Example:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> from refocus.evaluation.plan import Plan
        >>> from refocus.evaluation.prove import evaluate_suites
        >>> example = write("example", per_class=1)
        >>> plan = Plan({"digits": example.images})
        >>> _ = evaluate_suites(example.model, plan, "proof")
        >>> refocus.report("proof").page.name
        'report.html'
    """
    settings, folder = check_settings(settings, ReportSettings), check_path(run, "run")
    device = pick_device(settings.device)
    if runs.tuned(folder) is not None:
        folder = runs.finished(folder)
        measured = _measured(folder, settings, device)
        found = before_after.write(measured, folder, run=folder, code=settings.code, device=device)
        kept = results_of(folder).kept_original
        return Report(folder / before_after.PAGE, found, unchanged=kept, records=measured)
    if (folder / "settings.json").exists() and (folder / RESULTS).exists():
        _refuse_measuring(folder, settings, "an evaluation", "evaluate")
        found = before_after.write(folder, folder, code=settings.code, device=device)
        return Report(folder / before_after.PAGE, found, records=folder)
    if any(folder.glob("*/result.json")):
        _refuse_measuring(folder, settings, "a folder of probes", "probe")
        probe_page.write(folder)
        return Report(folder / probe_page.PAGE, None)
    raise InputError(
        f"{run}: neither a folder of `refocus tune` nor of `refocus run` nor of `refocus evaluate` "
        "nor of `refocus probe`"
    )


def _measured(run: Path, settings: ReportSettings, device: torch.device) -> Path:
    """The folder of a run's evaluation; a model without a table of cues is told what has one."""
    try:
        return before_after.prove_run(run, settings, device)
    except cues.NoMappingError as error:
        raise cues.only_evaluated("suites", settings.suites[CUES]) from error


def _refuse_measuring(folder: Path, settings: ReportSettings, what: str, command: str) -> None:
    """Stop where something is measured already and an option says how to measure."""
    for setting in settings_of(ReportSettings):
        value = getattr(settings, setting.name)
        if setting.name not in _HOW_TO_SHOW and value != setting.default:
            said = ", ".join(f"{n}={p}" for n, p in value.items()) if type(value) is dict else value
            raise InputError(
                f"‹{setting.name}› {said}: {folder} is {what}, and `refocus {command}` decides how "
                "that is measured; leave the option out"
            )
