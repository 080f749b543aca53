"""`refocus audit` and `refocus report`: pages on the background, and on what tuning changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from refocus import outputs
from refocus.cli.options import (
    Called,
    Device,
    Model,
    Names,
    Order,
    Workers,
    settings_from,
    with_settings,
)
from refocus.cli.printing import console, pairs, print_table
from refocus.reports.settings import AuditSettings, ReportSettings


@with_settings(AuditSettings, spelt={"faithful": "faithfulness"})
def audit(
    model: Model,
    images: Annotated[
        Path,
        typer.Option(
            help="ImageFolder of the model's classes, at best of images that it was not trained on."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for audit.html, audit.json, audit.csv and the records.")
    ],
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Foreground masks: CLASS/FILE-STEM.png. Without them they are found, into "
            "OUT/masks."
        ),
    ] = None,
    names: Names = None,
    order: Order = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an unfinished --out.")] = False,
    **given: Any,
) -> None:
    """Measure how much a model relies on the background.

    The page shows numbers with intervals, and the worst classes and images.
    """
    from refocus.reports import audit as audits

    settings = AuditSettings(**settings_from(AuditSettings, given))
    ref = outputs.reference(model, names=names, order=order)
    found = audits.audit(ref, images, out, masks=masks, settings=settings, resume=resume)
    print_table({"images": found.entry})
    console.print(f"{found.verdict}\nopen in a browser: {out / 'audit.html'}", soft_wrap=True)


def report(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of `refocus tune`, `refocus evaluate` or `refocus probe`."),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="For a tuning run: NAME=PATH to compare original and tuned on, as in `evaluate`. "
            "Default: its held-out images."
        ),
        Called("suites"),
    ] = None,
    masks: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: masks of a test set of your own, for shifts and maps."),
    ] = None,
    most: Annotated[
        int,
        typer.Option(
            help="Maximum number of images for what needs masks, spread over the classes.", min=2
        ),
    ] = 300,
    faithfulness: Annotated[
        int,
        typer.Option(
            help="Number of images for insertion and deletion, 32 forward passes each.", min=0
        ),
    ] = 0,
    workers: Workers = 0,
    code: Annotated[
        str | None,
        typer.Option(
            help="py:MODULE:FUNCTION once more, for a model of your own: a folder cannot name code "
            "to run."
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Write one self-contained page of what tuning changed: RUN/report.html.

    Beside it are report.md, report.csv and classes.csv.

    For a tuning run, original and tuned model are measured into RUN/proof first; an interrupted
    report resumes where it stopped. Probes that lie in RUN/probes are linked; a folder of probes
    has its page written anew.
    """
    from refocus.reports.report import report as write_report

    given: dict[str, Any] = {
        "suites": pairs("--on", on or []),
        "masks": pairs("--masks", masks or []),
        "most": most,
        "faithful": faithfulness,
        "workers": workers,
        "code": code,
        "device": device,
    }
    written = write_report(run, ReportSettings(**given))
    if written.evaluation:
        print_table(written.evaluation.suites)
    console.print(f"open in a browser: {written.page}", soft_wrap=True)
