"""Serves the app on one address, and nothing else.

No tunnel, no telemetry, no request to other hosts, no file but its own.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import anyio.to_thread
import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from gradio import processing_utils
from starlette.middleware.trustedhost import TrustedHostMiddleware

from refocus.app.door import Door
from refocus.app.folders import Folders
from refocus.app.page import CSS, THEME, build
from refocus.app.parts import Tool, said_in_page
from refocus.app.uploads import check_paths
from refocus.errors import InputError
from refocus.flow.results import AUDIT, MASKS, PAGE
from refocus.masks.choice import default_backbone
from refocus.runs import TUNE
from refocus.vit.loading import load_models, pick_device

PAGES = (
    "report.html",
    "audit.html",
    PAGE,  # of `refocus run`, and what it leads to
    f"{AUDIT}/audit.html",
    f"{TUNE}/report.html",
    f"{MASKS}/contact_sheet.html",
)
_MAX = "50mb"  # of an upload


@dataclass(frozen=True)
class AppSettings:
    """What `launch` serves, and where.

    model, against: as `refocus.load` takes them; `against` is compared with. images, masks: an
    ImageFolder and its masks, both or none; the folder of masks may be missing. The tab Mask makes
    masks in it, Tune and Audit read them, and All in one finds its own where it holds none. work:
    folder of all that the app makes. backbone: finds masks. host: anyone who reaches it can use the
    app.
    """

    model: str
    against: str | None = None
    images: Path | None = None
    masks: Path | None = None
    work: Path = Path("refocus-app")
    backbone: str = field(default_factory=default_backbone)
    host: str = "127.0.0.1"
    port: int = 7860


def prepared(settings: AppSettings) -> Server:
    """A server that has checked everything and serves nothing yet; `run` it.

    Raises:
        InputError: a model or folder that cannot be used, or an address that cannot be listened on.
    """
    if (settings.images is None) != (settings.masks is None):
        raise InputError(
            "‹images› and ‹masks›: give both or neither (the tab Mask creates a masks folder that "
            "does not exist yet)"
        )
    check_address(settings.host, settings.port)
    # report what cannot be loaded before a page opens
    load_models(settings.model, settings.against, pick_device("cpu"))
    folders = (
        Folders(settings.images, settings.masks) if settings.images and settings.masks else None
    )
    refs = {"model": settings.model}
    if settings.against:
        refs["against"] = settings.against
    work = settings.work.expanduser().resolve()
    return Server(Tool(refs, work, folders, settings.backbone), settings.host, settings.port)


def check_address(host: str, port: int) -> None:
    """Whether an address can be listened on.

    Raises:
        InputError: it cannot; says why.
    """
    if not host or ":" in host:
        what = "IPv6 is not supported" if host else "is empty"
        raise InputError(
            f"‹host› {host!r}: {what}; must be 127.0.0.1, 0.0.0.0 or a name of this machine"
        )
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except socket.gaierror as error:
        raise InputError(
            f"‹host› {host!r}: unknown; must be 127.0.0.1, 0.0.0.0 or a name of this machine"
        ) from error
    except OSError as error:
        raise InputError(
            f"‹host› {host} ‹port› {port}: cannot be listened on ({error.strerror}); name another"
        ) from error


def application(tool: Tool, host: str) -> FastAPI:
    """The app with its pages.

    host: the address it is bound to; other names for it are refused, unless it is open to all.
    """
    served = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    served.add_middleware(Door, room=tool.uploads.make_room)
    if host != "0.0.0.0":
        served.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost", "127.0.0.1"])

    @served.get("/pages/{name}/{page:path}")
    def page_of(name: str, page: str) -> FileResponse:
        """A report of a job of this app, or of a run in its work folder, and no other file."""
        file = tool.jobs[name].folder / page if name in tool.jobs and page in PAGES else None
        if file is None or not file.is_file() or _linked(file, tool.work):
            raise HTTPException(404)
        return FileResponse(file, media_type="text/html")

    return _mounted(served, tool)


def _linked(file: Path, work: Path) -> bool:
    """Whether a page, or a folder on the way to it from the work folder, is a link."""
    between = [place for place in file.parents if place.is_relative_to(work) and place != work]
    return any(place.is_symlink() for place in (file, *between))


def _mounted(served: FastAPI, tool: Tool) -> FastAPI:
    """With Gradio's page, which keeps its files in the app's own folders."""
    uploads = tool.uploads.opened()
    tool.uploads.make_room()
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # before the page is built: it reads this once
    _refuse_addresses()
    page = build(tool)
    _refuse_foreign_files(page, uploads)
    page.has_launched = (
        True  # else Gradio takes any path of this machine for an upload; only `launch` sets it
    )
    mounted: FastAPI = gr.mount_gradio_app(
        served,
        page,
        path="",
        theme=THEME,
        css=CSS,
        max_file_size=_MAX,
        allowed_paths=[str(tool.downloads.folder)],
        ssr_mode=False,
    )
    return mounted


def _refuse_foreign_files(page: gr.Blocks, uploads: Path) -> None:
    """Look at the data of every event, whichever way it came, before Gradio does.

    Gradio itself checks only what is marked as a file, and reads what is not marked.
    """
    genuine = page.preprocess_data

    async def preprocess_data(block_fn: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        with said_in_page():
            await anyio.to_thread.run_sync(check_paths, inputs, uploads)
        return await genuine(block_fn, inputs, *more, **named)

    page.preprocess_data = preprocess_data  # type: ignore[method-assign]


def _refuse_addresses() -> None:
    """Gradio would fetch an image for a client that names an address in place of an upload."""

    def refuse(*_args: Any, **_options: Any) -> Any:
        raise gr.Error("URLs are not opened; upload the file", print_exception=False)

    processing_utils.ssrf_protected_download = refuse
    processing_utils.async_ssrf_protected_download = refuse


class Server(uvicorn.Server):
    """A server that ends its jobs when it ends."""

    def __init__(self, tool: Tool, host: str, port: int) -> None:
        """host, port: the one address to listen on."""
        self.tool = tool
        super().__init__(
            uvicorn.Config(application(tool, host), host=host, port=port, log_level="warning")
        )

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop the jobs and hang up on open pages, which would hold the server; serve no more."""
        self.tool.jobs.stop_all()
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await super().shutdown(sockets)
