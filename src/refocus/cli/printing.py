"""What several commands print and parse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Column, Table

from refocus.results import SuiteEntry

if TYPE_CHECKING:
    from refocus.figures.tables import Row

# off: names, paths and messages of the user's may hold [square brackets] and :colons:
console = Console(markup=False, emoji=False)


def print_table(entries: Mapping[str, SuiteEntry]) -> None:
    """Print accuracies, shifts, cue and map scores and groups of every suite."""
    from refocus.figures.tables import accuracy_rows, other_rows

    print_rows(accuracy_rows(entries), ("suite", "protocol", "n", "top-1, %"))
    print_rows(other_rows(entries), ("suite", "measure", "n", "value"))
    if any(entry.protocols and entry.first.groups for entry in entries.values()):
        from refocus.reports.changes import group_rows  # loads matplotlib

        console.print("groups, the worst first")
        print_rows(group_rows(entries), ("suite", "group", "n", "top-1, %"))


def print_rows(rows: Sequence[Row], head: tuple[str, str, str, str]) -> None:
    """Print one table of numbers, with differences where there is a model to compare with.

    rows: none prints nothing. head: titles of name, protocol, measure or group, n and value.
    """
    if not rows:
        return
    paired = any(row.paired for row in rows)
    change = ("against", "difference", "95 % interval") if paired else ()
    titles = (*head, "95 % interval", *change)
    table = Table(
        *(Column(title, overflow="fold") for title in titles),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for row in rows:
        second = row.protocol if "protocol" in head else row.measure
        cells = [row.name, second, row.n_text, row.value_text, row.interval_text]
        if paired:
            cells += [row.against_text, row.difference_text, row.difference_interval_text]
        table.add_row(*cells)
    console.print(table)
