"""`refocus models`: which are supported; `refocus zero-shot`: a classifier from class names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from refocus.cli.printing import console


@dataclass(frozen=True)
class FamilyListed:
    """A row of `refocus models`."""

    about: str  # what is read
    examples: tuple[str, ...]  # what --model takes


@dataclass(frozen=True)
class Classifier:
    """What `refocus zero-shot` made."""

    folder: Path  # to be given as --model
    classes: int  # outputs
    sentences: int  # for each class


def models(
    out: Annotated[
        Path | None, typer.Option(help="Write the table as Markdown into this new file.")
    ] = None,
) -> dict[str, FamilyListed]:
    """List the supported families of Vision Transformers, and how to name them with --model."""
    from refocus.vit import catalogue
    from refocus.vit.families import FAMILIES

    columns = (Column(name, overflow="fold") for name in ("family", "what is read"))
    table = Table(
        *columns, Column("for example, --model", no_wrap=True, min_width=46), show_lines=True
    )
    found = {}
    for name, row in FAMILIES.items():
        found[name] = FamilyListed(row.about, tuple(row.examples))
        table.add_row(name, row.about, "\n".join(row.examples) or "a folder")
    console.print(table)
    console.print(f"refused: {catalogue.refused()}", soft_wrap=True)
    if out is not None:
        catalogue.write(out)
    return found


def zero_shot(
    model: Annotated[
        str,
        typer.Option(
            help="CLIP or SigLIP of transformers: hf:ID, or a folder that save_pretrained wrote."
        ),
    ],
    names: Annotated[
        str, typer.Option(help="Class names: a file with one per line, an ImageFolder, or a,b,c.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="New folder for the classifier; give it as --model to other commands."),
    ],
    templates: Annotated[
        Path | None,
        typer.Option(
            help="Prompts with {} for the class, one per line. Default: the 80 of CLIP's paper."
        ),
    ] = None,
) -> Classifier:
    """Make a classifier of CLIP or SigLIP from class names, without training.

    All commands take the result as --model.
    """
    from refocus.vit.classes import class_count
    from refocus.vit.from_names import read_sentences, write_zero_shot

    made = write_zero_shot(model, names, out, templates=templates)
    count = len(read_sentences(templates))
    console.print(f"{class_count(made)} classes, {count} sentences each: {out}", soft_wrap=True)
    return Classifier(out, class_count(made), count)
