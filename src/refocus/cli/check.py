"""`refocus check`: how a model, images and masks are understood."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from refocus import outputs, references
from refocus.cli.options import Model, Names, Order, option
from refocus.cli.printing import console
from refocus.errors import InputError
from refocus.settings import MaskPolarity

if TYPE_CHECKING:
    from refocus.reports.check import Checked


def check(
    model: Model,
    images: Annotated[Path, typer.Option(help="ImageFolder of the model's classes: CLASS/FILE.")],
    masks: Annotated[
        Path | None, typer.Option(help="Foreground masks: CLASS/FILE-STEM.png.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New HTML file: the same findings, with ten images and their masks."),
    ] = None,
    names: Names = None,
    order: Order = None,
    mask_polarity: Annotated[str, option("mask_polarity", MaskPolarity)] = "ask",
) -> Checked:
    """Check how refocus reads a model, images and masks, before you start a long run."""
    from refocus.reports import check as checks
    from refocus.vit.loading import load

    if out is not None and out.exists():
        raise InputError(f"‹out› {out}: exists and is not overwritten; name a new file")
    if out is not None:
        outputs.refuse_inside(out, {"‹images›": images, "‹masks›": masks})
    network = load(references.with_names(model, names=names, order=order))
    found = checks.check(network, images, masks, mask_polarity=mask_polarity)
    table = Table("output", Column("class folder", overflow="fold"), "images", "masks")
    for row in found.classes:
        table.add_row(str(row.output), row.folder, str(row.images), str(row.masks))
    console.print(table)
    console.print(
        f"{found.outputs} outputs; {found.pixels[0]} x {found.pixels[1]} pixels", soft_wrap=True
    )
    if found.coverage:
        low, middle, high = found.coverage.object
        console.print(
            f"in {found.coverage.looked_at} masks that were examined, the object covers "
            f"{middle:.0f} % of the image (10 to 90 %: {low:.0f} to {high:.0f}) and "
            f"{found.coverage.border:.0f} % of its border",
            soft_wrap=True,
        )
    if found.turned:
        console.print(
            f"{found.turned} of the images examined are rotated upright as their EXIF data says"
        )
    for problem in found.problems:
        console.print(f"cannot be used: {problem}", soft_wrap=True)
    if out is not None:
        checks.write(found, network, out)
        console.print(f"open in a browser: {out}", soft_wrap=True)
    return found
