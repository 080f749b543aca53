"""Serves the app on one address, and nothing else: no tunnel, no telemetry, no request to other
hosts, no file but its own.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from gradio import processing_utils
from starlette.middleware.trustedhost import TrustedHostMiddleware

from refocus.app.page import CSS, THEME, build
from refocus.app.parts import Tool

PAGES = ("report.html", "audit.html")
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' "
    "'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-ancestors 'none'"
)
_MAX = "50mb"  # of an upload


def application(tool: Tool, host: str) -> FastAPI:
    """The app with its pages.

    host: the address it is bound to; other names for it are refused, unless it is open to all.
    """
    served = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host not in ("0.0.0.0", "::"):
        served.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost", "127.0.0.1"])

    @served.middleware("http")
    async def only_from_here(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    @served.get("/pages/{name}/{page}")
    def page_of(name: str, page: str) -> FileResponse:
        """A report of a job of this app, or of a run in its work folder: no other file can be
        named.
        """
        if (
            name not in tool.jobs
            or page not in PAGES
            or not (tool.jobs[name].folder / page).is_file()
        ):
            raise HTTPException(404)
        return FileResponse(tool.jobs[name].folder / page, media_type="text/html")

    _refuse_addresses()
    page = build(tool)
    page.has_launched = (
        True  # else Gradio takes any path of this machine for an upload; only `launch` sets it
    )
    return gr.mount_gradio_app(
        served,
        page,
        path="",
        theme=THEME,
        css=CSS,
        max_file_size=_MAX,
        allowed_paths=[str(tool.work / "downloads")],
        ssr_mode=False,
    )


def _refuse_addresses() -> None:
    """Gradio would fetch an image for a client that names an address in place of an upload."""

    def refuse(*_args: Any, **_options: Any) -> Any:
        raise gr.Error("addresses are not opened: upload the file", print_exception=False)

    processing_utils.ssrf_protected_download = refuse
    processing_utils.async_ssrf_protected_download = refuse


class Server(uvicorn.Server):
    """A server that ends its jobs when it ends."""

    def __init__(self, tool: Tool, host: str, port: int) -> None:
        self.tool = tool
        super().__init__(
            uvicorn.Config(application(tool, host), host=host, port=port, log_level="warning")
        )

    async def shutdown(self, sockets: Any = None) -> None:
        self.tool.jobs.stop_all()
        await super().shutdown(sockets)
