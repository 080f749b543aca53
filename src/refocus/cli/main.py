"""The command line.

Each command prints a table for people, writes JSON for programs, exits 0, 2 (your input) or 1
(ours).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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
from refocus.cli.output import answering
from refocus.cli.printing import console
from refocus.cli.probe import list_probes, probe
from refocus.cli.push import push
from refocus.cli.report import audit, report
from refocus.cli.run import run
from refocus.cli.study import study
from refocus.cli.tune import tune
from refocus.cli.wording import Command
from refocus.errors import InputError

# commands that several processes of torchrun share
SHARED = ("tune", "masks", "evaluate", "audit", "probe", "study")
TWO_WORDS = {  # what a person types -> the command that it is
    ("probe", "run"): "probe",
    ("probe", "list"): "probes",
    ("study", "run"): "study",
}
HIDDEN = ("probes",)  # an earlier name, which still works


class Commands(TyperGroup):
    """The commands, some of which have two words."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the first word, or the first two, stand for, and the rest."""
        name = TWO_WORDS.get((args[0], args[1])) if len(args) > 1 else None
        if name is None:
            found: tuple[str | None, Any, list[str]] = super().resolve_command(ctx, args)
            return found
        return " ".join(args[:2]), self.get_command(ctx, name), args[2:]


app = typer.Typer(
    cls=Commands,
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

    `refocus run` does everything: it measures how much a model relies on the background (`audit`,
    `explain`), moves its relevance onto the object with a few images and masks (`tune`), and
    measures what that changed (`report`, `evaluate`). `refocus demo` shows this offline in minutes.
    """
    if version:
        console.print(__version__)
    name = context.invoked_subcommand
    if name is None and not version:
        context.get_help()  # Typer prints it
    if name and processes.place().count > 1 and name.split()[0] not in SHARED:
        raise InputError(
            f"refocus {name}: runs in one process and cannot be split by torchrun; start it "
            f"without torchrun (commands that can be split: {', '.join(SHARED)})"
        )


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "run": run,
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
    "push": push,
    "models": models,
    "zero-shot": zero_shot,
}
for _name, _command in COMMANDS.items():
    # the page of `app` has no result to print
    answered = _command if _name == "app" else answering(_command)
    app.command(_name, cls=Command, hidden=_name in HIDDEN)(answered)


def listed() -> list[str]:
    """The tables whose rows the help of a command lists, "module:TABLE" (`refocus.cli.rows`)."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return [extra.table for command in commands.values() for _, extra in command.tables]


def main() -> None:
    """Entry point: every command ends with one line and a documented exit status."""
    for stream in (sys.stdout, sys.stderr):  # a file name may hold what the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # a picture that is too large is refused in a line of our own
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")
    sys.exit(ending.run(lambda: app(prog_name="refocus", standalone_mode=False)))
