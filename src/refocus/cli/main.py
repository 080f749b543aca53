"""The command line.

Each command prints a table for people, writes JSON for programs, exits 0, 2 (your input) or 1
(ours).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from refocus import __version__, outputs, processes
from refocus.cli import ending
from refocus.cli.app import app as app_page
from refocus.cli.evaluate import evaluate, shifts
from refocus.cli.masks import masks
from refocus.cli.models import models, zero_shot
from refocus.cli.options import Called, Device, Model, Names, Order, Seed
from refocus.cli.printing import console
from refocus.cli.probe import list_probes, probe
from refocus.cli.report import audit, report
from refocus.cli.study import study
from refocus.cli.tune import tune
from refocus.cli.wording import Command
from refocus.errors import InputError

SHARED = ("tune", "masks", "study")  # commands that several processes of torchrun share
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Make a Vision Transformer look at the object.

    See how much it decides by the background (`audit`, `explain`), move its relevance onto the
    object with a few masks (`tune`), and prove what that changed (`report`, `evaluate`). `refocus
    demo` runs the whole story offline in minutes.
    """
    if version:
        console.print(__version__)
    name = context.invoked_subcommand
    if name is None and not version:
        context.get_help()  # Typer prints it
    if name and processes.started_several() and name not in SHARED:
        raise InputError(
            f"refocus {name}: does its work in one process and cannot be split by torchrun; start "
            f"it without (of several processes make use: {', '.join(SHARED)})"
        )


@app.command(cls=Command)
def demo(
    out: Annotated[Path, typer.Option(help="New folder for the results.")] = Path("refocus-demo"),
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """The whole story, offline: a ViT learns a shortcut, is refocused with 15 images, and shows the
    proof.
    """
    from refocus.demo import story as story
    from refocus.vit.loading import pick_device

    results = story.run(out, seed=seed, device=str(pick_device(device)))
    table = Table(
        "model",
        "as in training",
        "shuffled",
        "digits tuned on",
        "other digits",
        "background",
        title="top-1, %",
    )
    for name, row in results.items():
        cells = (f"{row[key]:.1f}" for key in ("in_domain", "shuffled", "trained", "untrained"))
        table.add_row(story.TITLES[name], *cells, f"{row['background_share']:.2f}")
    console.print(table)
    console.print(
        f"maps before and after: {out / 'maps.png'}\nopen in a browser:     {out / 'report.html'}",
        soft_wrap=True,
    )


@app.command(cls=Command)
def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="New folder for the overlays and explanations.json.")],
    names: Names = None,
    order: Order = None,
    against: Annotated[
        str | None,
        typer.Option(help="A second model, such as the one before tuning, shown beside it."),
    ] = None,
    class_: Annotated[
        str | None,
        typer.Option("--class", help="Class to explain, by name or index; else what is predicted."),
        Called("target"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Show where a model looks: one overlay per image, and explanations.json with the numbers."""
    from refocus.reports import explanations
    from refocus.vit.loading import pick_device

    refs = {
        which: outputs.reference(ref, names=names, order=order)
        for which, ref in (("model", model), ("against", against))
        if ref
    }
    for folder in filter(Path.is_dir, images):
        outputs.refuse_inside(out, {"IMAGES": folder})
    rows = explanations.write(
        explanations.find(images), refs, out, target=class_, device=pick_device(device)
    )
    table = Table(
        Column("image", overflow="fold"), "model", "prediction", "confidence", "explained"
    )
    for row in rows:
        answers = {"model": row.model, **({"against": row.against} if row.against else {})}
        for which, answer in answers.items():
            named = (escape(row.image), which, escape(answer.prediction))
            table.add_row(*named, f"{answer.confidence:.1%}", escape(answer.explained))
    console.print(table)
    console.print(f"overlays: {out}", soft_wrap=True)


for name, function in (
    ("masks", masks),
    ("tune", tune),
    ("evaluate", evaluate),
    ("shifts", shifts),
    ("audit", audit),
    ("probe", probe),
    ("app", app_page),
    ("probes", list_probes),
    ("report", report),
    ("study", study),
    ("models", models),
    ("zero-shot", zero_shot),
):
    app.command(name, cls=Command)(function)


def main() -> None:
    """Entry point: whatever happens ends in one line and a documented exit status."""
    sys.exit(ending.run(lambda: app(prog_name="refocus", standalone_mode=False)))
