"""What may come in: requests that write come from the app's own page, and are not too large."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' "
    "'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-ancestors 'none'"
)
_PROXY = "/proxy="  # Gradio would ask another host for a client
_READS = ("GET", "HEAD")
# what the page itself asks for; Gradio has more (its REST interface, recordings, ...)
_WRITES = ("queue/join", "upload", "component_server", "cancel", "reset")
_LARGEST = 64 << 20  # bytes of a whole request: one upload of the greatest size, and its frame


class Door:
    """Stands before the app, as ASGI has it.

    room: is told how many bytes a request will store, before they come.
    """

    def __init__(self, app: ASGIApp, room: Callable[[int], None]) -> None:
        """app: what lies behind the door."""
        self.app, self.room = app, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request in one line, or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if "\0" in scope["path"] or _PROXY in scope["path"]:
            await PlainTextResponse("the app has no such address", 404)(scope, receive, send)
            return
        if scope["method"] not in _READS:
            if refusal := _refusal(scope["path"], headers):
                await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)
                return
            self.room(_length(headers))
            receive = _counted(receive)
        await self.app(scope, receive, _with_policy(send))


def _refusal(path: str, headers: Headers) -> tuple[int, str] | None:
    """Status and reason."""
    if not from_own_page(headers):
        return 403, "this request comes from another page"
    if path.strip("/").removeprefix("gradio_api/") not in _WRITES:
        return 404, "the app has no such address"
    if _length(headers) > _LARGEST:
        return 413, f"more than {_LARGEST >> 20} MB at once"
    return None


def from_own_page(headers: Headers) -> bool:
    """Whether a request that writes can come from the app's own page, or from no page at all.

    A browser says of each such request where the page came from, and a page cannot change that.
    """
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    return urlsplit(origin).netloc == headers.get("host")


def _length(headers: Headers) -> int:
    given = headers.get("content-length", "0")
    return int(given) if given.isdecimal() else 0


def _counted(receive: Receive) -> Receive:
    """The body as it comes, as far as it may: a request need not say how long it is."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > _LARGEST:
            raise HTTPException(413, f"more than {_LARGEST >> 20} MB at once")
        return message

    return counted


def _with_policy(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
        await send(message)

    return sending
