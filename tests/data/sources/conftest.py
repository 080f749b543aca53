"""Sources are unpacked into a folder of the test, not into the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from refocus.data.sources.unpack import CACHE


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"
