"""Names and descriptions of the rows that help lists. Imports no torch, as most tables do.

They are kept in a file of the package. After a row was added, removed or reworded, write it anew:
`python scripts/help_rows.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from typing import Any

FILE = files("refocus").joinpath("assets", "rows.json")


def rows(table: str) -> dict[str, str]:
    """Name -> description of every row, those of installed packages included.

    The table itself is read, and torch with it, only where another package adds to it.

    Args:
        table: "module:TABLE", as in `options.Rows`.
    """
    kept = json.loads(FILE.read_text(encoding="utf-8"))[table]
    added = kept["group"] is not None and entry_points(group=kept["group"])
    return _described(_read(table)) if added else kept["rows"]


def text(tables: Iterable[str]) -> str:
    """What the file must hold: the rows of refocus itself, and the group where others add some."""
    found = {}
    for name in sorted(set(tables)):
        table = _read(name)
        own = getattr(table, "own", table)
        found[name] = {"group": getattr(table, "group", None), "rows": _described(own)}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _read(table: str) -> Mapping[str, Any]:
    module, _, name = table.partition(":")
    found: Any = getattr(import_module(module), name)
    read: Mapping[str, Any] = found() if callable(found) else found
    return read


def _described(table: Mapping[str, Any]) -> dict[str, str]:
    """A row says what it is in `about`, is that text itself, or has none."""
    return {
        name: row if isinstance(row, str) else getattr(row, "about", "")
        for name, row in table.items()
    }
