"""`refocus audit` and `refocus report`: pages on the background, and on what tuning changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refocus import processes, references
from refocus.cli.options import Model, Names, Order, Resume, settings_from, with_settings
from refocus.cli.printing import console, print_table
from refocus.errors import InputError
from refocus.reports.settings import AuditSettings, ReportSettings
from refocus.results import Audit

if TYPE_CHECKING:
    from refocus.reports.report import Report


@with_settings(AuditSettings, spelt={"faithful": "faithfulness"})
def audit(
    model: Model,
    images: Annotated[
        Path,
        typer.Option(
            help="ImageFolder of the model's classes, ideally images that it was not trained on."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for audit.html, audit.json, audit.csv and the records.")
    ],
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Foreground masks: CLASS/FILE-STEM.png. Without them, masks are "
            "found and written to OUT/masks."
        ),
    ] = None,
    names: Names = None,
    order: Order = None,
    resume: Resume = True,
    **given: Any,
) -> Audit:
    """Measure how much a model relies on the background.

    The page starts with the verdict and shows what the model was shown and what it said. Under
    `torchrun` the images are split over the processes.
    """
    from refocus.data.sources.opened import opened_pair
    from refocus.reports import audit as audits
    from refocus.vit.loading import pick_device

    settings = AuditSettings(**settings_from(AuditSettings, given))
    ref = references.with_names(model, names=names, order=order)
    if processes.place().count > 1 and opened_pair(images, masks, part="test").masks is None:
        raise InputError(
            "‹masks›: missing; under torchrun an audit does not find masks, so run `refocus "
            "masks` first"
        )
    with processes.shared(out, cpu=pick_device(settings.device).type == "cpu") as where:
        found = audits.audit(ref, images, where, masks=masks, settings=settings, resume=resume)
    print_table({"images": found.entry})
    console.print(f"{found.verdict}\nopen in a browser: {out / 'audit.html'}", soft_wrap=True)
    return found


@with_settings(ReportSettings, spelt={"suites": "on", "faithful": "faithfulness"})
def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of `refocus tune`, `refocus run`, `refocus evaluate` or `refocus probe`."
        ),
    ],
    **given: Any,
) -> Report:
    """Write a page on what tuning changed: RUN/report.html.

    The page needs no other file. report.md, report.csv and classes.csv have the same numbers.

    For a tuning run, original and tuned model are measured into RUN/proof first; an interrupted
    report resumes where it stopped. Probes in RUN/probes are linked. For `refocus run`, the tuning
    run is RUN/tune, and the page is written there. For a folder of probes, its page is written
    again.
    """
    settings = ReportSettings(**settings_from(ReportSettings, given))
    from refocus.reports.report import report as write_report  # loads torch

    written = write_report(run, settings)
    if written.evaluation:
        print_table(written.evaluation.suites)
    if written.unchanged:
        console.print("Nothing changed: tuning was tried, and the original model was kept.")
    console.print(f"open in a browser: {written.page}", soft_wrap=True)
    return written
