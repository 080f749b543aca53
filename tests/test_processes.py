"""Which process this is."""

from __future__ import annotations

from typing import Any

import pytest

from refocus import InputError, processes
from refocus.processes import Place, meet, place, take_place, workers_for


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


@pytest.mark.parametrize(
    ("wanted", "device", "cores", "here", "found"),
    [
        ("auto", "cpu", 64, "1", 0),  # the network fills the cores
        ("auto", "cuda", 2, "1", 1),
        ("auto", "cuda", 1, "1", 0),
        ("auto", "mps", 64, "1", 8),
        ("auto", "cuda", 16, "4", 3),  # each process has its share of the machine
        ("auto", "cuda", 4, "8", 0),
        (0, "cuda", 64, "1", 0),
        (3, "cpu", 1, "1", 3),  # a number is taken as it is
    ],
)
def test_images_are_read_ahead_of_an_accelerator(
    monkeypatch: pytest.MonkeyPatch,
    wanted: Any,
    device: str,
    cores: int,
    here: str,
    found: int,
) -> None:
    monkeypatch.setattr(processes, "_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    assert workers_for(wanted, device) == found
