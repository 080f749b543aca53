"""What tests of the app make: a running server, a free port, time to wait."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from refocus.app.folders import Folders

GRADIO = importlib.util.find_spec("gradio") is not None


def wait_until(done: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def in_a_loop(make: Callable[[], Any]) -> Any:
    """Make something of Gradio's inside of a loop; outside it opens two and leaves them open.

    A later test would fail by the warning. In this thread Playwright may have a loop.
    """

    async def made() -> Any:
        return make()

    with ThreadPoolExecutor(1) as another:
        return another.submit(asyncio.run, made()).result()


@contextlib.contextmanager
def serving(refs: dict[str, str], work: Path, folders: Folders) -> Iterator[tuple[str, Any]]:
    from refocus.app.parts import Tool
    from refocus.app.server import Server

    tool, port = Tool(refs, work, folders), free_port()

    def find(
        image: Image.Image,
    ) -> torch.Tensor:  # no backbone is loaded in these tests: the middle of the image
        mask = torch.zeros(1, image.height, image.width)
        mask[:, image.height // 4 : -image.height // 4, image.width // 4 : -image.width // 4] = 1
        return mask

    tool.find = find

    server = in_a_loop(lambda: Server(tool, "127.0.0.1", port))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}", tool
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "an open page holds the server"
