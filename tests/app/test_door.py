"""Which requests the app lets in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.makers import GRADIO

if not GRADIO:
    pytest.skip("gradio is not installed", allow_module_level=True)

from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from refocus.app import door

OWN = "http://testserver"
UPLOAD = "/gradio_api/upload"


@pytest.fixture
def asked() -> list[int]:
    return []


@pytest.fixture
def client(asked: list[int]) -> Any:
    app = FastAPI()
    app.add_middleware(door.Door, room=asked.append)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def anything(path: str, request: Request) -> int:
        return len(await request.body())

    return TestClient(app)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # no browser
        ({"origin": OWN}, 200),
        ({"origin": OWN, "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://testserver.evil.example"}, 403),
        ({"origin": "http://testserver:81"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_other_pages_write_nothing(
    headers: dict[str, str], status: int, client: Any, asked: list[int]
) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert client.request(method, UPLOAD, content=b"abc", headers=headers).status_code == status
    assert client.get(UPLOAD, headers=headers).status_code == 200  # reading is no harm
    assert asked == ([3, 3, 3] if status == 200 else [])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "path", ["/gradio_api/run/predict", "/gradio_api/vibe-edit/", "/gradio_api/stream/x", "/login"]
)
def test_addresses_that_the_page_does_not_need_are_closed(path: str, client: Any) -> None:
    assert client.post(path, headers={"origin": OWN}).status_code == 404


@pytest.mark.filterwarnings("ignore")
def test_a_request_has_a_greatest_size(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_LARGEST", 1000)
    assert client.post(UPLOAD, content=b"x" * 1000).json() == 1000
    assert client.post(UPLOAD, content=b"x" * 1001).status_code == 413
    parts = (b"x" * 400 for _ in range(3))  # in chunks: nobody says how much will come
    assert client.post(UPLOAD, content=parts).status_code == 413


@pytest.mark.filterwarnings("ignore")
def test_every_answer_has_the_policy(client: Any) -> None:
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]
