"""Which paths an event may name, and what the app keeps of files."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from refocus.app.uploads import Store, check_paths
from refocus.errors import InputError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "own.png").write_bytes(b"own")
    return folder


def wrong(kind: str, store: Path, tmp_path: Path) -> Any:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    place = store / "inside" / "made"
    if kind == "link":
        place.symlink_to(secret)
    elif kind == "link to an own file":
        place.symlink_to(store / "inside" / "own.png")
    elif kind == "circle":
        place.symlink_to(place)
    elif kind == "fifo":
        os.mkfifo(place)
    paths = {
        "foreign": str(secret),
        "folder": str(store),
        "missing": str(place),
        "climbing": f"{store}/inside/../../secret.png",
        "relative": "secret.png",
        "address": "https://example.com/a.png",
        "nul": f"{store}/inside/own.png\0",
        "number": 3,
        "list": [str(secret)],
        "empty": "",
        "device": "/dev/zero",
    }
    return paths.get(kind, str(place))


KINDS = (
    "foreign", "folder", "missing", "climbing", "relative", "address", "nul", "number", "list",
    "empty", "device", "link", "link to an own file", "circle", "fifo",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_only_files_of_the_store_are_named(kind: str, store: Path, tmp_path: Path) -> None:
    path = wrong(kind, store, tmp_path)
    own = {"path": str(store / "inside" / "own.png")}
    for content in (
        {"path": path},
        {"path": path, "meta": {"_type": "gradio.FileData"}},
        [own, {"layers": [own, {"deep": ({"path": path},)}]},],
    ):  # fmt: skip
        with pytest.raises(InputError, match="only files that were uploaded"):
            check_paths(content, store)


def test_an_own_file_and_what_names_none_may_pass(store: Path) -> None:
    own = {"path": str(store / "inside" / "own.png"), "meta": {}}
    check_paths([own, None, 0.5, "text", {"background": own, "layers": []}, {"path": None}], store)


def test_a_store_is_closed_to_other_users(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for name in ("new", "open"):
        folder = Store(tmp_path / name).opened()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_room_is_made_by_age_and_then_by_size(tmp_path: Path) -> None:
    for position, name in enumerate(("a", "b", "c", "d")):
        (tmp_path / name).write_bytes(b"x" * 100)
        age = 5000 if name == "a" else 100 - position
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    store = Store(tmp_path, most=250, age=1000)

    def left() -> set[str]:
        return {p.name for p in tmp_path.iterdir()}

    Store(tmp_path, most=1000, age=1000).make_room()
    assert left() == {"b", "c", "d"}  # a was too old
    store.make_room()
    assert left() == {"c", "d"}
    store.make_room(100)
    assert left() == {"d"}
    Store(tmp_path / "none").make_room(100)
