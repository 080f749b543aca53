"""`refocus run`: from a checkpoint and a folder of images to a decision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from refocus import progress, references
from refocus.cli.options import Model, Names, Order, Rows, Track, settings_from, with_settings
from refocus.cli.printing import console
from refocus.errors import InputError
from refocus.flow.settings import RunSettings

if TYPE_CHECKING:
    from refocus.flow.plan import RunPlan
    from refocus.flow.results import RunResult


@with_settings(
    RunSettings,
    spelt={"tests": "test"},
    beside={"objective": Rows("refocus.objectives.registry:OBJECTIVES", "Objectives")},
)
def run(
    model: Model,
    images: Annotated[
        Path,
        typer.Option(
            help="ImageFolder of the model's classes, ideally images that it was not trained on."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything; the page is OUT/index.html.")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Foreground masks: CLASS/FILE-STEM.png. Without them, masks are "
            "found and written to OUT/masks."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only print what would be done, with what data, and how long it would take.",
        ),
    ] = False,
    track: Track = None,
    names: Names = None,
    order: Order = None,
    **given: Any,
) -> RunPlan | RunResult:
    """Measure, fix and compare a model in one command, from its images to a decision.

    Finds masks if you have none, measures how much the model relies on the background, tunes it
    with a few of the images, checks that this does no harm, and compares before and after. One
    page at the end: OUT/index.html. Run the same command again to resume.
    """
    settings = RunSettings(**settings_from(RunSettings, given))
    ref = references.with_names(model, names=names, order=order)
    if out is None and not dry_run:
        raise InputError("‹out›: missing")
    from refocus.flow import run as flow

    if dry_run:
        planned = flow.plan_run(ref, images, masks=masks, settings=settings)
        _print_plan(planned)
        return planned
    assert out is not None
    found = flow.run(ref, images, out, masks=masks, settings=settings, track=track)
    for answer in found.answers:
        console.print(f"{answer.question} {answer.answer}.", style="bold", soft_wrap=True)
        console.print(f"{answer.why}\n", soft_wrap=True, highlight=False)
    console.print(f"model to use: {found.model}\nopen in a browser: {found.page}", soft_wrap=True)
    return found


def _print_plan(planned: RunPlan) -> None:
    masks = f"masks of {planned.masks}" if planned.masks else "masks that are found"
    console.print(
        f"{planned.count} images of {planned.classes} classes in {planned.images}, with {masks}",
        soft_wrap=True,
    )
    for name, count in planned.tests.items():
        console.print(f"test set {name}: {count} images", soft_wrap=True)
    table = Table("stage", "what it does", "images", "time")
    for stage in planned.stages:
        took = progress.duration(stage.seconds)
        table.add_row(stage.name, stage.does, str(stage.images), took)
    console.print(table)
    console.print(
        f"about {progress.duration(planned.seconds)} in total on this machine, estimated from a "
        "few timed images; nothing was written"
    )
