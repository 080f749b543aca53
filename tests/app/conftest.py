"""Two models for tests of the app."""

from __future__ import annotations

from pathlib import Path

import pytest

from refocus.vit import loading
from tests.makers import Build


@pytest.fixture
def two_models(tiny: Build, tmp_path: Path) -> dict[str, str]:
    for name in ("before", "after"):
        loading.save(tiny(), tmp_path / name)
    return {"model": str(tmp_path / "after"), "against": str(tmp_path / "before")}
