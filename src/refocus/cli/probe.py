"""`refocus probe run` and `refocus probe list`: robustness tests from the literature."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from refocus import processes, references
from refocus.cli.options import Names, Order, Rows, settings_from, spelling, with_settings
from refocus.cli.printing import console, print_rows
from refocus.probes.settings import ProbeSettings

if TYPE_CHECKING:
    from refocus.probes.results import ProbeResult


@with_settings(
    ProbeSettings,
    needed=("kinds",),
    spelt={"kinds": "kind"},
    beside={"kinds": Rows("refocus.probes.registry:PROBES", "Probes")},
)
def probe(
    model: Annotated[
        str,
        typer.Option(
            help="timm name, hf:ID, torchvision:NAME, or the folder of a model or of a finished "
            "run."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for probes.html, probes.md, probes.csv and a subfolder for each probe."
        ),
    ],
    more: Annotated[
        list[str] | None, typer.Argument(help="More names of probes.", metavar="[NAME]...")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="ImageFolder of the model's classes: CLASS/FILE.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="The model to compare with: adds paired differences with intervals."),
    ] = None,
    names: Names = None,
    order: Order = None,
    **given: Any,
) -> dict[str, ProbeResult]:
    """Measure how robust a model is to attacks, occlusion, corruptions and more.

    `refocus probe run` measures, before and after tuning; `refocus probe list` shows what each
    probe tests. Every probe has its own folder in --out: finished ones are kept, interrupted ones
    are resumed, and others can be added later with the same options. Under `torchrun` the images
    are split over the processes.
    """
    given["kinds"] = [*given["kinds"], *(more or [])]
    settings = ProbeSettings(**settings_from(ProbeSettings, given))
    from refocus.probes import measure, page  # loads torch
    from refocus.vit.loading import pick_device

    model = references.with_names(model, names=names, order=order)
    against = against and references.with_names(against, names=names, order=order)
    with processes.shared(out, cpu=pick_device(settings.device).type == "cpu") as where:
        found = measure.probe(model, where, settings, images=images, against=against)
        rows = [page.row(result) for result in page.results(where.expanduser()).values()]
    print_rows(rows, ("probe", "measure", "n", "value"))
    console.print(f"open in a browser: {out.expanduser() / page.PAGE}", soft_wrap=True)
    return found


@dataclass(frozen=True)
class ProbeListed:
    """A row of `refocus probes`."""

    about: str  # what it tests
    source: str  # where it comes from
    passes: str  # forward passes an image
    needs: tuple[str, ...]  # options and packages


def list_probes() -> dict[str, ProbeListed]:
    """List the probes: what each tests, its source, its cost and what it needs."""
    from refocus.probes.registry import PROBES

    table = Table(
        "probe",
        Column("what it tests", overflow="fold"),
        Column("source", overflow="fold"),
        "passes per image",
        "needs",
    )
    found = {}
    for name, row in PROBES.items():
        needs = tuple(map(spelling, row.needs))
        found[name] = ProbeListed(row.about, row.source, row.cost, needs)
        table.add_row(name, row.about, row.source, row.cost, ", ".join(needs))
    console.print(table)
    console.print(
        "A pass: one forward pass; a gradient counts as two more. --most says how many images "
        "(default 200).",
        soft_wrap=True,
    )
    return found
