"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True)
class Called:
    """Beside an option whose parameter the library calls differently, as in
    `on: Annotated[list[str], typer.Option(...), Called("suites")]`.
    """

    name: str


Model = Annotated[
    str,
    typer.Option(
        help="timm name, hf:ID, torchvision:NAME or a model folder; `refocus models` lists "
        "families."
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        help="Class names in the order of the model's outputs: a file with one a line, or a JSON "
        "list. For a model that carries none."
    ),
]
Order = Annotated[
    str | None,
    typer.Option(
        help="How class folders name the outputs of a model without names: natural (timm) or "
        "string (torchvision, transformers)."
    ),
]
MaskPolarity = Annotated[
    str,
    typer.Option(
        help="ask: stop where most masks seem to mark the background. keep: they are right. "
        "invert: exchange object and background."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.", min=0)]
