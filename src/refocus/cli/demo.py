"""`refocus demo`: the whole story in minutes, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from refocus.cli.options import settings_from, with_settings
from refocus.cli.printing import console
from refocus.demo.settings import DemoSettings

if TYPE_CHECKING:
    from refocus.demo.story import DemoRow


@with_settings(DemoSettings)
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the results; the same command resumes there.")
    ] = Path("refocus-demo"),
    **given: Any,
) -> dict[str, DemoRow]:
    """Show everything offline: a ViT learns a shortcut, and 15 images with masks fix it."""
    settings = DemoSettings(**settings_from(DemoSettings, given))
    from refocus.demo import story  # loads torch

    results = story.run(out, settings)
    table = Table(
        "model",
        "as in training",
        "shuffled",
        "digits tuned on",
        "other digits",
        "background",
        title="top-1, %",
    )
    for name, row in results.items():
        numbers = (row.in_domain, row.shuffled, row.trained, row.untrained)
        cells = (f"{number:.1f}" for number in numbers)
        table.add_row(story.TITLES[name], *cells, f"{row.background_share:.2f}")
    console.print(table)
    console.print(
        f"maps before and after: {out / 'maps.png'}\nopen in a browser:     {out / 'report.html'}",
        soft_wrap=True,
    )
    return results
