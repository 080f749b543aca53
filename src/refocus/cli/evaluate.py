"""`refocus evaluate` and `refocus shifts`: the proof, and the shifts it is made on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from refocus import outputs
from refocus.cli.options import (
    Backgrounds,
    Called,
    Device,
    MaskPolarity,
    MaskScore,
    Model,
    Names,
    Order,
    Rows,
    Seed,
    Workers,
)
from refocus.cli.printing import console, pairs, print_table
from refocus.errors import InputError


def evaluate(
    model: Model,
    out: Annotated[
        Path, typer.Option(help="New folder: results.json and one JSON line per image.")
    ],
    on: Annotated[
        list[str],
        typer.Option(
            help="NAME=PATH; more may follow. An ImageFolder of your classes under any name, or a "
            "known test set by its name: cue-conflict, imagenet-segmentation (gtsegs_ijcv.mat), or "
            "one of those below."
        ),
        Called("suites"),
        Rows("refocus.evaluation.suites:SUITES", "Test sets", inline=False, described=True),
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
    masks: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=PATH: masks of a test set of your own, for map scores and --shift."
        ),
    ] = None,
    names: Names = None,
    order: Order = None,
    mask_polarity: MaskPolarity = "ask",
    shift: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated shifts made from images and masks, or all. See also `refocus "
            "shifts --help`."
        ),
        Called("shifts"),
        Rows("refocus.data.shifts:KINDS", "Shifts"),
    ] = None,
    backgrounds: Backgrounds = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="standard, paper or both (docs/evaluation.md). Default: both for known sets, "
            "standard for your own."
        ),
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=CSV with the columns image,group: adds accuracy per group, the worst first."
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            help='For cue-conflict with your own classes: JSON {"cat": ["tabby", ...], ...}.'
        ),
    ] = None,
    faithfulness: Annotated[
        int,
        typer.Option(
            help="With --masks: images for insertion and deletion, 32 forward passes each.",
            min=0,
        ),
    ] = 0,
    mask_score: MaskScore = 0.5,
    most: Annotated[
        int | None,
        typer.Option(
            help="With --masks: maximum number of images, spread over the classes. Default: all.",
            min=2,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.", min=1)] = 64,
    workers: Workers = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an unfinished --out.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Measure accuracy on test sets and on shifts of your images, before and after.

    Every image leaves one record.
    """
    from refocus.data import shifts as shifted
    from refocus.evaluation.plan import Plan
    from refocus.evaluation.prove import evaluate_suites
    from refocus.tuning.selection import trained_classes

    model = outputs.reference(model, names=names, order=order)
    against = against and outputs.reference(against, names=names, order=order)
    plan = Plan(
        suites=pairs("--on", [*on, *(more or [])]),
        masks=pairs("--masks", masks or []),
        shifts=tuple(shifted.kinds(shift, "shifts", real=backgrounds is not None)) if shift else (),
        backgrounds=backgrounds,
        protocols=_protocols(protocol),
        groups=pairs("--groups", groups or []),
        mapping=mapping,
        faithful=faithfulness,
        mask_score=mask_score,
        mask_polarity=mask_polarity,
        most=most,
        trained=trained_classes(model),
        seed=seed,
        batch_size=batch_size,
        workers=workers,
    )
    found = evaluate_suites(model, plan, out, against=against, resume=resume, device=device)
    print_table(found.suites)
    skipped = sum(len(entry.first.unreadable) for entry in found.suites.values() if entry.protocols)
    note = f"{skipped} unreadable images skipped\n" if skipped else ""
    console.print(
        f"{note}results: {out / 'results.json'}\na page:  refocus report {out}", soft_wrap=True
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
    kind: Annotated[
        str,
        typer.Option(
            help="Comma-separated kinds of shift, or all. Curves have a folder for each level."
        ),
        Called("kinds"),
        Rows("refocus.data.shifts:KINDS", "Shifts", described=True),
    ] = "only-fg,only-bg,mixed-same,mixed-rand",
    backgrounds: Backgrounds = None,
    mask_score: MaskScore = 0.5,
    mask_polarity: MaskPolarity = "ask",
    workers: Annotated[int, typer.Option(help="Processes that make images.", min=0)] = 0,
    resume: Annotated[
        bool, typer.Option(help="Skip what is done; --no-resume insists on a new folder.")
    ] = True,
    seed: Annotated[
        int, typer.Option(help="Seed that decides whose background each object gets.", min=0)
    ] = 0,
) -> None:
    """Make distribution shifts from images and masks.

    Objects get other backgrounds, or are moved, scaled and turned.
    """
    from refocus.data.shifts import KINDS, kinds
    from refocus.evaluation import shifted

    settings = shifted.ShiftSettings(
        kinds=tuple(kinds(kind, real=backgrounds is not None)),
        backgrounds=str(backgrounds) if backgrounds else None,
        mask_score=mask_score,
        mask_polarity=mask_polarity,
        workers=workers,
        seed=seed,
    )
    made = shifted.shifts(images, masks, out, settings, resume=resume)
    table = Table("shift", "images", "what it is")
    for name, count in made.written.items():
        table.add_row(name, str(count), KINDS[name].about)
    console.print(table)
    note = f"{len(made.skipped)} images skipped (see shifts.json)\n" if made.skipped else ""
    console.print(f"{note}each is an ImageFolder below {made.folder}", soft_wrap=True)


def _protocols(given: str | None) -> tuple[Literal["standard", "paper"], ...] | None:
    legal: dict[str | None, tuple[Literal["standard", "paper"], ...] | None] = {
        None: None,
        "both": ("standard", "paper"),
        "standard": ("standard",),
        "paper": ("paper",),
    }
    if given not in legal:
        raise InputError(f"--protocol {given}: legal are standard, paper, both")
    return legal[given]
