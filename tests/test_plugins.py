"""Rows that other packages add to a table by an entry point."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from refocus.errors import InputError
from refocus.plugins import Table
from tests.makers import install


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_rows_of_other_packages_come_after_our_own_and_are_loaded_when_taken(site: Path) -> None:
    install(site, "plug_late", "ROW = 7\n", "[refocus.numbers]\nseven = plug_late:ROW\n")
    table = Table("refocus.numbers", {"one": 1}, int)
    assert list(table) == ["one", "seven"]
    assert len(table) == 2
    assert "seven" in table
    assert "plug_late" not in sys.modules
    assert table["seven"] == 7
    assert "plug_late" in sys.modules
    assert "eight" not in table
    with pytest.raises(KeyError):
        table["eight"]


def test_entry_points_are_read_once_and_not_before_a_name_is_asked_for(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refocus import plugins

    genuine, read = plugins.entry_points, []
    monkeypatch.setattr(
        plugins, "entry_points", lambda **given: read.append(given) or genuine(**given)
    )
    table = Table("refocus.numbers", {"one": 1}, int)
    assert not read
    assert dict(table) == {"one": 1}
    assert "two" not in table
    assert len(read) == 1


@pytest.mark.parametrize(
    ("code", "points", "message"),
    [
        ("ROW = 1\n", "one = plug:ROW", r"'one' of plug \(plug:ROW\) is taken by refocus"),
        ("ROW = 'x'\n", "two = plug:ROW", r"is a str; it must be a builtins\.int"),
        ("ROW = 1\n", "two = plug:NONE", r"cannot be loaded \(.*NONE"),
        ("raise RuntimeError('broken\\nlong')\n", "two = plug:ROW", r"cannot be loaded \(broken\)"),
        ("ROW = 1\n", "two = plug_gone:ROW", r"cannot be loaded \(No module named"),
    ],
)
def test_rows_that_are_refused(
    code: str, points: str, message: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "plug", raising=False)
    install(site, "plug", code, f"[refocus.numbers]\n{points}\n")
    with pytest.raises(InputError, match=message) as refused:
        dict(Table("refocus.numbers", {"one": 1}, int))
    assert "\n" not in str(refused.value)
    sys.modules.pop("plug", None)


def test_two_packages_may_not_bring_the_same_name(site: Path) -> None:
    for package in ("plug_a", "plug_b"):
        install(site, package, "ROW = 2\n", f"[refocus.numbers]\ntwo = {package}:ROW\n")
    with pytest.raises(InputError, match=r"'two' of plug_b .* is taken by plug_a"):
        list(Table("refocus.numbers", {"one": 1}, int))
