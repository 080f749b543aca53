"""`refocus export`: a tuned model in a format for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refocus.cli.printing import console

if TYPE_CHECKING:
    from refocus.vit.onnx import Exported


def export(
    run: Annotated[
        str,
        typer.Argument(
            help="Folder of a finished `refocus tune` or `refocus run`, or a model folder or name."
        ),
    ],
    onnx: Annotated[
        Path, typer.Option(help="New ONNX file. Needs pip install 'refocus-vit[onnx]'.")
    ],
    tolerance: Annotated[
        float,
        typer.Option(
            help="Largest difference between the logits of torch and onnxruntime on random images, "
            "as a share of the largest logit.",
            min=0,
        ),
    ] = 1e-4,
) -> Exported:
    """Write the tuned model as ONNX, and check it against the original in torch.

    The file takes batches of any size and carries preprocessing and class names as metadata.
    """
    from refocus.vit.loading import load
    from refocus.vit.onnx import export_onnx

    made = export_onnx(load(run), onnx, tolerance=tolerance)
    console.print(
        f"{made.file}: logits differ from torch's by at most {made.difference:.1g} of the largest "
        f"({made.images} random images, tolerance {made.tolerance:g})",
        soft_wrap=True,
    )
    return made
