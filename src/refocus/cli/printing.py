"""What several commands print and parse."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Column, Table

from refocus.errors import InputError
from refocus.results import SuiteEntry

console = Console()


def print_table(entries: Mapping[str, SuiteEntry]) -> None:
    """Accuracies, shifts, cue and map scores of every suite, with differences where there is a
    model to compare with.
    """
    from refocus.figures.tables import accuracy_rows, other_rows

    accuracies = (accuracy_rows(entries), ["suite", "protocol", "n", "top-1, %"])
    others = (other_rows(entries), ["suite", "measure", "n", "value"])
    for rows, head in (accuracies, others):
        if not rows:
            continue
        paired = any(row.paired for row in rows)
        columns = [
            *head,
            "95 % interval",
            *(["against", "difference", "95 % interval"] if paired else []),
        ]
        table = Table(
            *(Column(title, overflow="fold") for title in columns),
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for row in rows:
            cells = [
                row.name,
                row.protocol if "protocol" in head else row.measure,
                row.n_text,
                row.value_text,
                row.interval_text,
            ]
            table.add_row(
                *cells,
                *(
                    [row.against_text, row.difference_text, row.difference_interval_text]
                    if paired
                    else []
                ),
            )
        console.print(table)


def pairs(option: str, given: list[str]) -> dict[str, Path]:
    """NAME=PATH options as a dictionary."""
    found: dict[str, Path] = {}
    for pair in given:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path or "/" in name or name in (".", ".."):
            raise InputError(
                f"{option} {pair}: must be NAME=PATH, with a name that can be a file name"
            )
        if name in found:
            raise InputError(f"{option} {pair}: the name {name!r} is used twice")
        found[name] = Path(path).expanduser()
    return found
