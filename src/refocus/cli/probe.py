"""`refocus probe` and `refocus probes`: robustness tests of the literature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from refocus import outputs
from refocus.cli.options import (
    Called,
    Device,
    MaskPolarity,
    MaskScore,
    Names,
    Order,
    Rows,
    Workers,
    spelling,
)
from refocus.cli.printing import console, print_rows


def probe(
    model: Annotated[
        str, typer.Option(help="timm name, hf:ID, torchvision:NAME or a model folder.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder: one for each probe in it, and probes.html, probes.md, probes.csv."
        ),
    ],
    kind: Annotated[
        list[str],
        typer.Option(
            help="Names of probes, or all; more may follow. `refocus probes` says what each tests."
        ),
        Called("kinds"),
        Rows("refocus.probes.registry:PROBES", "Probes"),
    ],
    more: Annotated[
        list[str] | None, typer.Argument(help="Further names.", metavar="[NAME]...")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="ImageFolder of the model's classes: CLASS/FILE.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="The model to compare with: adds paired differences with intervals."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Foreground masks, for shapes and attention-segmentation.")
    ] = None,
    names: Names = None,
    order: Order = None,
    mask_polarity: MaskPolarity = "ask",
    styles: Annotated[
        Path | None, typer.Option(help="Folder of pictures whose style is taken, for stylization.")
    ] = None,
    cues: Annotated[
        Path | None,
        typer.Option(help="Cue conflict stimuli: SHAPE/SHAPEn-TEXTUREm.EXT, for shape-bias."),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(help='For --cues with your own classes: JSON {"cat": ["tabby", ...]}.'),
    ] = None,
    imagenet_c: Annotated[
        Path | None, typer.Option(help="The published ImageNet-C: CORRUPTION/SEVERITY/WNID/FILE.")
    ] = None,
    saliency: Annotated[
        str, typer.Option(help="What occlusion calls salient: relevance or attention (as DINO).")
    ] = "relevance",
    most: Annotated[
        int, typer.Option(help="Maximum number of images, spread over the classes.", min=2)
    ] = 200,
    mask_score: MaskScore = 0.5,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.", min=1)] = 32,
    workers: Workers = 0,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed that decides which images, and all that is drawn at random.", min=0
        ),
    ] = 0,
    device: Device = "auto",
) -> None:
    """Measure how a model bears attacks, occlusion, corruptions and more, before and after.

    Every probe has a folder of its own in --out: what is there is kept, what was interrupted is
    resumed, and further probes can be added later with the same options.
    """
    from refocus.probes import measure, page
    from refocus.probes.settings import ProbeSettings

    given: dict[str, Any] = {
        "kinds": (*kind, *(more or [])),
        "masks": masks,
        "mask_polarity": mask_polarity,
        "styles": styles,
        "cues": cues,
        "mapping": mapping,
        "imagenet_c": imagenet_c,
        "saliency": saliency,
        "most": most,
        "mask_score": mask_score,
        "batch_size": batch_size,
        "workers": workers,
        "seed": seed,
        "device": device,
    }
    settings = ProbeSettings(**given)
    model = outputs.reference(model, names=names, order=order)
    against = against and outputs.reference(against, names=names, order=order)
    measure.probe(model, out, settings, images=images, against=against)
    rows = [page.row(result) for result in page.results(out.expanduser()).values()]
    print_rows(rows, ("probe", "measure", "n", "value"))
    console.print(f"open in a browser: {out.expanduser() / page.PAGE}", soft_wrap=True)


def list_probes() -> None:
    """List the probes: what each tests, where it comes from, what it costs and needs."""
    from refocus.probes.registry import FOLDERS, PACKAGES, PROBES

    table = Table(
        "probe",
        Column("what it tests", overflow="fold"),
        Column("source", overflow="fold"),
        "passes per image",
        "needs",
    )
    for name, row in PROBES.items():
        needs = [
            spelling(need) if need in FOLDERS else f"refocus-vit[{PACKAGES[need]}]"
            for need in row.needs
        ]
        table.add_row(name, row.about, row.source, row.cost, escape(", ".join(needs)))
    console.print(table)
    console.print(
        "A pass: one forward pass; a gradient counts as two more. --most says how many images "
        "(default 200).",
        soft_wrap=True,
    )
