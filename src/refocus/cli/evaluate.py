"""`refocus evaluate` and `refocus shifts`: the proof, and the shifts it is made on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from refocus import processes, references
from refocus.cli.options import Model, Names, Order, Resume, Rows, settings_from, with_settings
from refocus.cli.printing import console, print_table
from refocus.evaluation.settings import EvaluationSettings, ShiftSettings
from refocus.results import Evaluation

if TYPE_CHECKING:
    from refocus.evaluation.shifted import ShiftFolder


@with_settings(
    EvaluationSettings,
    spelt={"suites": "on", "shifts": "shift", "faithful": "faithfulness"},
    beside={
        "suites": Rows(
            "refocus.evaluation.suites:SUITES", "Test sets", inline=False, described=True
        ),
        "shifts": Rows("refocus.data.shifts:KINDS", "Shifts"),
    },
)
def evaluate(
    model: Model,
    out: Annotated[
        Path, typer.Option(help="New folder: results.json and one JSON line per image.")
    ],
    more: Annotated[
        list[str] | None, typer.Argument(help="Further NAME=PATH.", metavar="[NAME=PATH]...")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="The model to compare with: adds paired differences with 95 % intervals."
        ),
    ] = None,
    names: Names = None,
    order: Order = None,
    resume: Resume = True,
    **given: Any,
) -> Evaluation:
    """Measure accuracy on test sets and on shifts of your images.

    Measures one model, or two on the same images, such as before and after tuning. Writes one
    record per image. Under `torchrun` the images are split over the processes.
    """
    given["suites"] = [*given["suites"], *(more or [])]
    values = settings_from(EvaluationSettings, given)
    from refocus.evaluation.plan import Plan  # loads torch
    from refocus.evaluation.prove import evaluate_suites
    from refocus.vit.loading import pick_device

    model = references.with_names(model, names=names, order=order)
    against = against and references.with_names(against, names=names, order=order)
    plan = Plan(**values)
    with processes.shared(out, cpu=pick_device(plan.device).type == "cpu") as where:
        found = evaluate_suites(model, plan, where, against=against, resume=resume)
    print_table(found.suites)
    skipped = sum(len(entry.unreadable) for entry in found.suites.values())
    note = f"{skipped} unreadable images skipped\n" if skipped else ""
    console.print(
        f"{note}results: {out / 'results.json'}\na page:  refocus report {out}", soft_wrap=True
    )
    return found


@with_settings(
    ShiftSettings,
    spelt={"kinds": "kind"},
    beside={"kinds": Rows("refocus.data.shifts:KINDS", "Shifts", described=True)},
)
def shifts(
    images: Annotated[Path, typer.Argument(help="ImageFolder: CLASS/FILE.")],
    masks: Annotated[Path, typer.Option(help="Foreground masks: CLASS/FILE-STEM.png.")],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the shifts, each an ImageFolder: OUT/KIND/CLASS/FILE-STEM.png."
        ),
    ],
    resume: Annotated[
        bool, typer.Option(hidden=True, help="--no-resume requires a new folder.")
    ] = True,
    **given: Any,
) -> ShiftFolder:
    """Make shifted copies of your images with masks.

    Objects are put on other backgrounds, or are moved, scaled and rotated.
    """
    settings = ShiftSettings(**settings_from(ShiftSettings, given))
    from refocus.data.shifts import KINDS  # loads torch
    from refocus.evaluation import shifted

    made = shifted.shifts(images, masks, out, settings, resume=resume)
    table = Table("shift", "images", "what it is")
    for name, count in made.written.items():
        table.add_row(name, str(count), KINDS[name].about)
    console.print(table)
    note = f"{len(made.skipped)} images skipped (see shifts.json)\n" if made.skipped else ""
    console.print(f"{note}each is an ImageFolder below {made.folder}", soft_wrap=True)
    return made
