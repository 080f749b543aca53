"""The page that shows a study: charts, numbers, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refocus.figures import charts
from refocus.figures.html import page
from refocus.files import write_text
from refocus.reports.gallery import Card
from refocus.studies.writing import NOTE, Table


@dataclass(frozen=True)
class Chart:
    """A chart for wide and narrow screens, and what stands above it."""

    title: str
    picture: charts.Chart


@dataclass(frozen=True)
class Pictures:
    """Images chosen by one rule: how many there are, and those that are shown."""

    title: str
    rule: str
    total: int
    cards: tuple[Card, ...]


def write_page(
    file: Path,
    title: str,
    about: str,
    *,
    table: Table,
    shown: Sequence[Chart] = (),
    groups: Sequence[Pictures] = (),
    text: str = "",
    facts: Mapping[str, str],
) -> None:
    """One self-contained page; `text` is what a study without a table says."""
    head, *rows = table or [[]]
    content = page(
        "study.html.j2",
        title=title,
        about=about,
        charts=shown,
        head=head,
        rows=[[cell.strip("*") for cell in row] for row in rows],
        note=NOTE,
        groups=groups,
        text=text.strip(),
        facts=facts,
        tile_columns=7,
    )
    write_text(file, content)
