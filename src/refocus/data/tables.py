"""Tables as people have them.

Saved by Excel, with semicolons, blanks, tabs or a mark at their start.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from refocus.errors import InputError, first_line
from refocus.files import read_bytes

_MOST = 1 << 28  # bytes
_DELIMITERS = ",;\t|"
_SEPARATOR = re.compile(r"\Asep=.\r?\n")  # which Excel reads and writes
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")


def read_table(
    file: Path, columns: Sequence[str], shown: str, *, optional: Sequence[str] = ()
) -> Iterator[dict[str, str]]:
    """Rows of a CSV file that has a head, with at least `columns`.

    Blanks around names and values do not count, nor does case in the head.

    optional: columns that are read where they are there, and whose cells may be empty.

    Raises:
        InputError: not such a file, or a row that lacks a value or has more than the head; names
            `shown` and the row.
    """
    needed = ",".join(columns)
    rows, names = _opened(file, shown, needed)
    if lacking := [c for c in columns if names.count(c) != 1]:
        raise InputError(
            f"{shown}: must be CSV with {needed}; it does not have exactly one column {lacking[0]}"
        )
    places = {c: names.index(c) for c in (*columns, *(c for c in optional if c in names))}
    try:
        for line in rows:
            if not any(cell.strip() for cell in line):
                continue
            if any(cell.strip() for cell in line[len(names) :]):
                raise InputError(
                    f"{shown}, line {rows.line_num}: has more values than the head has columns; "
                    "must have quotes around a value that holds the delimiter"
                )
            row = {c: line[i].strip() if i < len(line) else "" for c, i in places.items()}
            if missing := [c for c in columns if not row[c]]:
                raise InputError(f"{shown}, line {rows.line_num}: has no value for {missing[0]}")
            yield row
    except csv.Error as error:
        raise InputError(f"{shown}, line {rows.line_num}: {first_line(error)}") from error


def head_of(file: Path, shown: str) -> list[str]:
    """Names of the columns of a CSV file, in small letters.

    Raises:
        InputError: not such a file.
    """
    return _opened(file, shown, "a head")[1]


def _opened(file: Path, shown: str, needed: str) -> tuple[Any, list[str]]:
    """The rows after the head, and the names in it."""
    try:
        text = _SEPARATOR.sub("", _text(read_bytes(file.expanduser(), _MOST)))
        head = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(_DELIMITERS, key=head.count)
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        return rows, [name.strip().lower() for name in next(r for r in rows if any(r))]
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise InputError(f"{shown}: cannot be read ({reason})") from error
    except (ValueError, csv.Error, StopIteration) as error:
        raise InputError(f"{shown}: must be CSV with {needed} ({first_line(error)})") from error


def _text(content: bytes) -> str:
    """UTF-8 with or without its mark, or what Excel calls Unicode; else Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def number(text: str, shown: str) -> float:
    """A finite number from a cell.

    Raises:
        InputError: it is none; names `shown`.
    """
    if _THOUSANDS.fullmatch(text):
        raise InputError(
            f"{shown}: {text!r} may use a comma for decimals or thousands; must use a decimal point"
        )
    try:
        value = float(text.replace(",", ".") if "." not in text else text)  # Excel's comma
    except ValueError:
        value = math.nan
    value = math.nan if "_" in text else value  # which Python alone reads as a number
    if not math.isfinite(value) or abs(value) > 1e9:
        raise InputError(f"{shown}: {text!r} is not a finite number; must be in pixels")
    return value
