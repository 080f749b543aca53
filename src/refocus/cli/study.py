"""`refocus study`: a table or figure of the paper from one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from refocus.cli.options import Called, Rows, is_named, settings_from, with_settings
from refocus.cli.printing import console
from refocus.errors import InputError
from refocus.files import read_text, write_text
from refocus.studies.config import SPELT, as_config, read_config
from refocus.studies.settings import StudySettings

if TYPE_CHECKING:
    from refocus.studies.estimate import Estimated
    from refocus.studies.results import StudyResults


@with_settings(
    StudySettings,
    spelt=SPELT,
    beside={
        "on": Called("suites"),
        "models": Rows("refocus.tuning.presets:presets", "Models"),
        "rates": Rows("refocus.objectives.registry:OBJECTIVES", "Objectives"),
    },
)
def study(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="Name of the study, or list to show all."),
        Rows("refocus.studies.registry:STUDIES", "Studies"),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; studies share runs in it and resume where they stopped."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only print what is missing, its size, and the hours it would take."
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with these options by name (_ for -); options on the command line "
            "override it. With --dry-run a missing file is written, with the settings given."
        ),
    ] = None,
    latex: Annotated[
        bool, typer.Option("--latex", help="Print the table as LaTeX (booktabs), as in NAME.tex.")
    ] = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print every number as CSV, as in NAME.csv.")
    ] = False,
    **given: Any,
) -> StudyResults | Estimated | dict[str, str] | None:
    """Run a table or figure of the paper, on its data sets or on your own images and model.

    Every number is printed next to the paper's. Under `torchrun`, on one machine or several that
    share OUT, each process takes whole runs of the study.
    """
    from refocus.studies import registry

    if name == "list":
        return _list()
    registry.study(name)
    settings = _settings(context, given, config, dry_run=dry_run)
    if out is None and not dry_run:
        raise InputError("‹out›: missing")
    if latex and csv:
        raise InputError("‹latex› and ‹csv›: give one of them")
    from refocus.studies import start

    if dry_run:
        written = _write_missing(config, settings)
        if settings.on and written:
            return None
        estimate = start.estimate(name, settings)
        _print_estimate(estimate)
        return estimate
    assert out is not None
    found = start.study(name, out, settings)
    if found is not None:  # else a process other than the first
        _print_found(found, out / name, "tex" if latex else "csv" if csv else "")
    return found


def _list() -> dict[str, str]:
    """Show all studies."""
    from refocus.studies import registry

    table = Table("study", Column("what it shows", overflow="fold"))
    for key, row in registry.STUDIES.items():
        table.add_row(key, row.told(row.suites))
    console.print(table)
    return {key: row.about for key, row in registry.STUDIES.items()}


def _print_found(results: StudyResults, stem: Path, ending: str) -> None:
    """The table, or the file with that ending, for a file or another program."""
    text = read_text(stem.with_name(f"{stem.name}.{ending}")) if ending else results.text
    console.print(text, end="", soft_wrap=True, highlight=False)
    if not ending:
        console.print(f"open in a browser: {stem}.html", soft_wrap=True)


def _settings(
    context: typer.Context, given: dict[str, Any], config: Path | None, *, dry_run: bool
) -> StudySettings:
    """What was named, then what the file says, then the defaults."""
    values = settings_from(StudySettings, given)
    if config is not None and not (dry_run and not config.exists()):
        named = {name for name in values if is_named(context, name)}
        values |= {k: v for k, v in read_config(config).items() if k not in named}
    return StudySettings(**values)


def _write_missing(config: Path | None, settings: StudySettings) -> bool:
    """Write the file of these settings where it was named and is not there; whether it was."""
    if config is None or config.exists():
        return False
    write_text(config, as_config(settings))
    console.print(f"written: {config}", soft_wrap=True)
    return True


def _print_estimate(estimated: Estimated) -> None:
    table = Table(
        "what", Column("path", overflow="fold"), "there", "images", "GB", title="what it needs"
    )
    for place in estimated.places:
        size = "-" if place.gb is None else f"{place.gb:g}"
        images = "-" if place.images is None else str(place.images)
        table.add_row(place.what, place.path, "yes" if place.there else "MISSING", images, size)
    console.print(table)
    for what, names in (
        ("masks", estimated.masks_not_named),
        ("suites", estimated.suites_not_named),
    ):
        if names:
            console.print(
                f"{what} not named: {', '.join(names)}; the rows that need them are left out"
            )
    table = Table(
        "model",
        "runs",
        "steps",
        "images to answer",
        "images with gradients",
        "hours",
        title="what it takes on this machine, from one timed step",
    )
    for row in estimated.models:
        counts = map(str, (row.runs, row.steps, row.images, row.gradients))
        table.add_row(row.model, *counts, f"{row.hours:.1f}")
    console.print(table)
