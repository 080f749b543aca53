"""`refocus push`: a tuned model and its card to the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from refocus.cli.printing import console
from refocus.errors import InputError


@dataclass(frozen=True)
class Pushed:
    """The card that was written, or the address of the model that was sent."""

    card: Path | None
    address: str | None


def push(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished `refocus tune` or `refocus run`.")
    ],
    repo: Annotated[
        str | None, typer.Argument(help="The model's name on the Hub: OWNER/NAME.")
    ] = None,
    licence: Annotated[
        str,
        typer.Option(
            "--license", help="Licence of the weights as the Hub names it: mit, apache-2.0, ..."
        ),
    ] = "unknown",
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    card_only: Annotated[
        bool,
        typer.Option("--card-only", help="Write RUN/README.md, the model card, and send nothing."),
    ] = False,
) -> Pushed:
    """Upload a tuned model to the Hugging Face Hub, with a model card made from its report.

    The card says what was tuned and on what, the verdict, numbers with intervals, limits and the
    licence. A card that you edited (RUN/README.md) is sent as it is; any other is written anew.
    """
    from refocus.reports import card

    if card_only:
        written = card.write_card(run, repo=repo or "YOU/MODEL", licence=licence)
        console.print(f"card: {written}", soft_wrap=True)
        return Pushed(written, None)
    if repo is None:
        raise InputError("‹repo›: missing; give OWNER/NAME, or --card-only to send nothing")
    address = card.push(run, repo, licence=licence, private=private)
    console.print(address, soft_wrap=True)
    return Pushed(None, address)
