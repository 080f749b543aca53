"""Every address of the app against foreign hosts, foreign pages and foreign paths.

What events are given is tried in tests/app/test_server.py; here it is what a browser, or a page in
another tab, can send.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from refocus.app.folders import Folders
from tests.app.makers import GRADIO, in_a_loop, serving
from tests.makers import make_images
from tests.robustness.world import tiny_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GRADIO, reason="gradio is not installed"),
    pytest.mark.filterwarnings("ignore"),
]
SECRET = b"nobody may read this"
WRITING = ("POST", "PUT", "DELETE", "PATCH")
FOREIGN = (
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "https://127.0.0.1.evil.example"},
    {"origin": "http://127.0.0.1:1"},
    {"origin": "file://"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
)
HOSTS = ("evil.example", "127.0.0.1.evil.example", "evil.example:80", "10.0.0.1", "[::1]", "x@y")


@functools.cache
def routes() -> list[tuple[str, str]]:
    """Every method and address that Gradio has, and ours."""
    import gradio as gr

    found = {("GET", "/"), ("GET", "/pages/{name}/{page}")}
    left = list(in_a_loop(lambda: gr.routes.App.create_app(gr.Blocks()).routes))
    while left:
        route = left.pop()
        if hasattr(route, "original_router"):  # of FastAPI's routers that are included
            left += route.original_router.routes
        elif hasattr(route, "path"):
            for method in getattr(route, "methods", None) or ("GET",):
                found |= {(method, route.path), (method, f"/gradio_api{route.path}")}
    return sorted(found)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address, and a folder beside its own that holds a secret."""
    root = tmp_path_factory.mktemp("app")
    (root / "secret.txt").write_bytes(SECRET)
    models = {"model": str(tiny_model(root / "model"))}
    with serving(models, root / "work", Folders(*make_images(root))) as (url, _):
        yield url, root


def _filled(path: str, value: str) -> str:
    return re.sub(r"{[^}]*}", lambda _: value, path)


def test_there_are_addresses_to_try() -> None:
    found = routes()
    assert len(found) > 30
    assert {method for method, _ in found} >= {"GET", "POST"}


def test_another_host_name_is_answered_by_no_address(app: tuple[str, Path]) -> None:
    import httpx

    for method, path in routes():
        for host in HOSTS:
            found = httpx.request(
                method, app[0] + _filled(path, "x"), headers={"host": host}, timeout=10
            )
            assert found.status_code == 400, (method, path, host)


def test_another_page_can_write_nothing(app: tuple[str, Path]) -> None:
    import httpx

    for method, path in routes():
        if method in WRITING:
            for headers in FOREIGN:
                found = httpx.request(
                    method, app[0] + _filled(path, "x"), headers=headers, timeout=10
                )
                assert found.status_code == 403, (method, path, headers)


def test_no_address_gives_a_file_that_is_not_the_app_s(app: tuple[str, Path]) -> None:
    import httpx

    url, root = app
    secret, climb = root / "secret.txt", "../" * 12
    places = [str(secret), f"{climb}{secret}", "work/../secret.txt", f"file://{secret}"]
    places += [f"{root}/work/uploads/../../secret.txt", f"//{secret}", f"{secret}%00.png"]
    values = [*places, *(quote(p, safe="") for p in places), *(quote(quote(p)) for p in places)]
    for method, path in routes():
        if method != "GET" or "{" not in path:
            continue
        for value in values:
            with httpx.stream("GET", url + _filled(path, value), timeout=10) as found:
                if "text/event-stream" in found.headers.get("content-type", ""):
                    continue  # it says nothing until something happens
                content = found.read()
            assert SECRET not in content, (path, value)
            assert found.status_code < 500, (path, value, found.status_code)


def test_a_request_that_is_too_large_stores_nothing(app: tuple[str, Path]) -> None:
    import httpx

    url, root = app
    files = [("files", (f"{n}.png", b"\x00" * (20 << 20), "image/png")) for n in range(4)]
    found = httpx.post(url + "/gradio_api/upload", files=files, timeout=30)
    assert found.status_code == 413
    stored = [f for f in (root / "work").rglob("*.png") if f.stat().st_size > 1 << 20]
    assert stored == []
