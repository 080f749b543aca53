"""Which process this is."""

from __future__ import annotations

import pytest

from refocus import InputError
from refocus.processes import Place, meet, place, take_place


def test_alone_there_is_one_place_and_nobody_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert place() == meet(cpu=True) == Place(0, 1)
    assert place().first
    place().wait()


def test_torchrun_says_the_place_until_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert place() == take_place() == Place(2, 3, 1)
    assert not Place(2, 3).first
    assert place() == Place()


def test_a_place_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "second")
    with pytest.raises(InputError, match="RANK='second': must be a number"):
        place()
