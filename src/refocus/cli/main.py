"""The command line.

Each command prints a table for people, writes JSON for programs, exits 0, 2 (your input) or 1
(ours).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from refocus import __version__, processes
from refocus.cli import ending
from refocus.cli.app import app as app_page
from refocus.cli.check import check
from refocus.cli.demo import demo
from refocus.cli.evaluate import evaluate, shifts
from refocus.cli.explain import explain
from refocus.cli.export import export
from refocus.cli.masks import masks
from refocus.cli.models import models, zero_shot
from refocus.cli.printing import console
from refocus.cli.probe import list_probes, probe
from refocus.cli.report import audit, report
from refocus.cli.study import study
from refocus.cli.tune import tune
from refocus.cli.wording import Command
from refocus.errors import InputError

SHARED = ("tune", "masks", "study")  # commands that several processes of torchrun share
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Make a Vision Transformer look at the object.

    See how much it decides by the background (`audit`, `explain`), move its relevance onto the
    object with a few masks (`tune`), and prove what that changed (`report`, `evaluate`). `refocus
    demo` runs the whole story offline in minutes.
    """
    if version:
        console.print(__version__)
    name = context.invoked_subcommand
    if name is None and not version:
        context.get_help()  # Typer prints it
    if name and processes.started_several() and name not in SHARED:
        raise InputError(
            f"refocus {name}: does its work in one process and cannot be split by torchrun; start "
            f"it without (of several processes make use: {', '.join(SHARED)})"
        )


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "check": check,
    "explain": explain,
    "masks": masks,
    "tune": tune,
    "evaluate": evaluate,
    "shifts": shifts,
    "audit": audit,
    "probe": probe,
    "app": app_page,
    "probes": list_probes,
    "report": report,
    "study": study,
    "export": export,
    "models": models,
    "zero-shot": zero_shot,
}
for _name, _command in COMMANDS.items():
    app.command(_name, cls=Command)(_command)


def main() -> None:
    """Entry point: whatever happens ends in one line and a documented exit status."""
    for stream in (sys.stdout, sys.stderr):  # a file name may hold what the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.exit(ending.run(lambda: app(prog_name="refocus", standalone_mode=False)))
