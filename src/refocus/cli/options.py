"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
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
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.", min=0)]
