"""Files: whole or not at all, and what a full disk says."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from refocus.files import read_json, replacing, write_json


def _dying(path: Path, error: BaseException) -> None:
    with replacing(path) as partial:
        partial.write_bytes(b"half")
        raise error


@pytest.mark.parametrize("name", ["x.json", "k" * 250 + ".json", "caf\udce9.json"])
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_json(path, {"name": name})
    assert read_json(path) == {"name": name}
    with pytest.raises(KeyboardInterrupt):
        _dying(path, KeyboardInterrupt())
    assert read_json(path) == {"name": name}
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        ValueError("I/O error: File too large (os error 27)"),
    ],
)
def test_a_full_disk_is_an_error_of_the_system_whoever_says_it(
    tmp_path: Path, error: Exception
) -> None:
    with pytest.raises(OSError, match=r"No space|failed writing|too large") as full:
        _dying(tmp_path / "x.pt", error)
    assert full.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
