"""Tables of images: CSV, TSV, JSON lines, and the metadata file of `datasets`' image folders."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from refocus.data.listing import there
from refocus.data.sources.rows import (
    Asked,
    LeftOut,
    Row,
    Source,
    Stated,
    as_text,
    choose_split,
    class_names_beside,
    column,
    named,
    parts_of,
    refuse_unused,
)
from refocus.data.tables import head_of, read_table
from refocus.errors import InputError, first_line
from refocus.files import read_text
from refocus.records import decode

METADATA = ("metadata.csv", "metadata.jsonl")


def table(asked: Asked, file: Path) -> Source:
    """A file with a row for each image: its path, label, and mask, group and split if known.

    Paths are relative to the file's folder.

    Raises:
        InputError: not such a table, or a column is missing.
    """
    lines = file.suffix.lower() == ".jsonl"
    names = _keys(file, asked.shown) if lines else head_of(file, asked.shown)
    if file.name in METADATA and "file_name" in names and "image" not in asked.columns:
        asked = replace(
            asked, columns={**asked.columns, "image": "file_name"}
        )  # as `datasets` has it
    columns = {kind: column(asked, kind, names, needed=True) for kind in ("image", "label")}
    columns |= {k: column(asked, k, names, needed=False) for k in ("mask", "group", "split")}
    found = {kind: name for kind, name in columns.items() if name is not None}

    def cells() -> Iterator[dict[str, str]]:
        if lines:
            used = list(found.values())
            rows: Iterator[Any] = (
                _texts(r, used, asked.shown) for r in _objects(file, asked.shown)
            )
        else:
            needed = [found["image"], found["label"]]
            rest = [name for kind, name in found.items() if kind not in ("image", "label")]
            rows = read_table(file, needed, asked.shown, optional=rest)
        for row in rows:
            yield {kind: row.get(name, "") for kind, name in found.items()}

    every = list(cells())
    splits = list(dict.fromkeys(row["split"] for row in every)) if "split" in found else []
    refuse_unused(asked, ("image", "label", "mask", "group", *(["split"] if splits else [])))
    mine = choose_split(asked, splits) if splits else None
    rows = [row for row in every if mine is None or row["split"] == mine]
    places = [_place(file, row["image"], asked.shown) for row in rows]
    masks = [_place(file, m, asked.shown) if (m := row.get("mask")) else None for row in rows]
    classes = class_names_beside(file)

    def read() -> Iterator[Row | LeftOut | Stated]:
        if classes:
            yield Stated(tuple(classes))
        for row, image, mask in zip(rows, places, masks, strict=True):
            yield _row(row, image, mask, named(row["label"], classes, asked.shown))

    what = f"a table{f', split {mine}' if mine is not None else ''}"
    state = tuple(_state(place) for place in (*places, *masks) if place is not None)
    rest = tuple(f"{k}={v}" for row in rows for k, v in row.items())
    return Source(what, (*state, *rest, *(classes or ())), read, parts_of(splits), mine)


def _row(row: dict[str, str], image: Path, mask: Path | None, label: str | None) -> Row | LeftOut:
    if label is None:
        return LeftOut("images without a label")
    return Row(label, image.name, image, mask, row.get("group", ""))


def _place(table_file: Path, text: str, shown: str) -> Path:
    """A file that a table names.

    Raises:
        InputError: there is none.
    """
    with contextlib.suppress(RuntimeError):  # the home of nobody
        text = str(Path(text).expanduser())
    path = Path(text)
    found = path if path.is_absolute() else table_file.parent / path
    if not there(found) and "\\" in text:  # written on Windows
        found = table_file.parent / text.replace("\\", "/")
    if not there(found):
        raise InputError(f"{shown}: names {text}, and {found} is no file")
    return found


def _state(file: Path) -> str:
    status = file.stat()
    return f"{file}:{status.st_size}:{status.st_mtime_ns}"


def _keys(file: Path, shown: str) -> list[str]:
    """Keys of all lines: a mask, say, may be known of some images alone."""
    return list(dict.fromkeys(str(key) for row in _objects(file, shown) for key in row))


def _texts(row: dict[str, Any], used: list[str], shown: str) -> dict[str, str]:
    """The values of a line as a table would hold them; what is missing is left out.

    Raises:
        InputError: a list, say, where a column is read.
    """
    found = {key: as_text(row.get(key), shown, key) for key in used}
    return {key: text for key, text in found.items() if text is not None}


def _objects(file: Path, shown: str) -> Iterator[dict[str, Any]]:
    try:
        text = read_text(file, most=1 << 28)
    except (OSError, ValueError) as error:
        raise InputError(f"{shown}: cannot be read ({first_line(error)})") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = decode(line.encode())
        except Exception as error:
            raise InputError(f"{shown}, line {number}: not JSON ({first_line(error)})") from error
        if not isinstance(row, dict):
            raise InputError(f"{shown}, line {number}: must be a JSON object")
        yield row
