"""`refocus explain`: where a model looks, one overlay per image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from refocus import references
from refocus.cli.options import Called, Model, Names, Order, option
from refocus.cli.printing import console
from refocus.settings import Device, Precision

if TYPE_CHECKING:
    from refocus.reports.explanations import ExplainedImage


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
        typer.Option(
            "--class", help="Class to explain, by name or index. Default: the predicted one."
        ),
        Called("target"),
    ] = None,
    precision: Annotated[str, option("precision", Precision)] = "fp32",
    device: Annotated[str, option("device", Device)] = "auto",
) -> list[ExplainedImage]:
    """Show where a model looks: one overlay per image, and explanations.json with the numbers."""
    from refocus.reports import explanations
    from refocus.vit.loading import pick_device

    refs = {
        which: references.with_names(ref, names=names, order=order)
        for which, ref in (("model", model), ("against", against))
        if ref
    }
    rows = explanations.write(
        images, refs, out, target=class_, device=pick_device(device), precision=precision
    )
    table = Table(
        Column("image", overflow="fold"), "model", "prediction", "confidence", "explained"
    )
    for row in rows:
        answers = {"model": row.model, **({"against": row.against} if row.against else {})}
        for which, answer in answers.items():
            named = (row.image, which, answer.prediction)
            table.add_row(*named, f"{answer.confidence:.1%}", answer.explained)
    console.print(table)
    console.print(f"overlays: {out}", soft_wrap=True)
    return rows
