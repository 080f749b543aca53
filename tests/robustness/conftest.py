"""The door, and the world behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.robustness.door import Door
from tests.robustness.world import World, build


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    opened = Door()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def world(door: Door, tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"), door)
