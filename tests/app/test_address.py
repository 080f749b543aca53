"""Addresses that the app refuses to listen on."""

from __future__ import annotations

import socket

import pytest

from refocus.errors import InputError
from tests.app.makers import GRADIO, free_port


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
def test_addresses_that_cannot_be_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from refocus.app.server import check_address

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}: cannot be listened on"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", free_port())
    for host, message in (("::1", "IPv6"), ("", "is empty"), ("no-such-host.invalid", "unknown")):
        with pytest.raises(InputError, match=message):
            check_address(host, 7860)
