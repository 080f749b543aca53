"""A command that speaks its own language.

What the library says about a parameter (see `refocus.errors`) names the option or the argument that
the command declares for it, help lists the rows of the tables, and no option is empty.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.panel import Panel
from rich.table import Table
from typer.core import TyperCommand

from refocus import progress
from refocus.cli import panels
from refocus.cli.options import Called, Rows, signature_of, spelling
from refocus.cli.printing import console
from refocus.cli.rows import rows
from refocus.errors import InputError, Message

T = TypeVar("T")


class Command(TyperCommand):
    """What `refocus NAME` runs."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        for option in self.params:
            if text := getattr(option, "help", None):
                option.help = self.worded(Message(text))  # type: ignore[attr-defined]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse what is empty: as a path, '' would be the current folder, as a host, all hosts.

        `--advanced` shows the whole help.
        """
        if panels.ADVANCED in args:
            ctx.meta[panels.ADVANCED] = True
            args = ["--help"]
        self._refuse_empty(ctx, args)
        return super().parse_args(ctx, args)

    def _refuse_empty(self, ctx: Any, args: list[str]) -> None:
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        for name, value in given.items():
            for word in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(word, str) and not word.strip():
                    raise InputError(self.worded(Message(f"‹{name}›: is empty")))

    def invoke(self, ctx: Any) -> Any:
        """Run it; an InputError comes out with options in place of parameters."""
        with progress.begun(ctx.command_path), _notices(self):
            try:
                return super().invoke(ctx)
            except InputError as error:
                raise InputError(self.worded(error.message)) from error

    # --- what it says -----------------------------------------------------------------------------

    def worded(self, message: Message) -> str:
        """The text of a message with this command's options."""
        return message.worded(self._words)

    def _words(self, name: str, value: str | None) -> str:
        """`--name`, `--name value`, `--no-name` for a switch that is off, or METAVAR."""
        declared = self._declared.get(name)
        if declared is None:
            return spelling(name, value)
        if declared.param_type_name == "argument":
            shown = (declared.metavar or declared.name).upper()
        elif value in ("True", "False") and declared.is_flag:
            return str([*declared.opts, *declared.secondary_opts][0 if value == "True" else -1])
        else:
            shown = max(declared.opts, key=len)
        return shown if value is None else f"{shown} {value}"

    @property
    def _declared(self) -> dict[str, Any]:
        """The library's name of a parameter -> the option or argument for it here."""
        found = {declared.name: declared for declared in self.params}
        for name, extra in self._extras(Called):
            found.setdefault(extra.name, found[name])
        return found

    def _extras(self, kind: type[T]) -> Iterator[tuple[str, T]]:
        """What stands beside the command's options in their annotations."""
        if self.callback is None:
            return
        signature = signature_of(inspect.unwrap(self.callback))
        for name, parameter in signature.parameters.items():
            for extra in getattr(parameter.annotation, "__metadata__", ()):
                if isinstance(extra, kind):
                    yield name, extra

    # --- help -------------------------------------------------------------------------------------

    @property
    def tables(self) -> list[tuple[str, Rows]]:
        """The tables that options name, each beside its parameter."""
        return list(self._extras(Rows))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print it in panels, with the rows of the tables that options name, and examples."""
        tables = [(name, extra, rows(extra.table)) for name, extra in self.tables]
        declared = self._declared
        for name, extra, found in tables:
            if extra.inline:
                declared[name].help += f" One of {', '.join(found)}."
        hidden = panels.arrange(self.params, advanced=panels.ADVANCED in ctx.meta)
        super().format_help(ctx, formatter)
        for _, extra, found in tables:
            if extra.described:
                console.print(_described(extra.title, found))
        if shown := panels.examples(self.name or "", hidden=hidden):
            console.print(shown)


def _described(title: str, found: Mapping[str, str]) -> Panel:
    table = Table(box=None, show_header=False, pad_edge=False, highlight=True)
    table.add_column(style="bold cyan", no_wrap=True)
    for name, about in found.items():
        table.add_row(name, about)
    return Panel(table, title=title, title_align="left", border_style="dim")


# --- notices --------------------------------------------------------------------------------------


@contextmanager
def _notices(command: Command) -> Iterator[None]:
    """Notices and warnings of the library go to stderr, one line each."""
    log, handler = logging.getLogger("refocus"), _Said()
    handler.addFilter(_Once())
    handler.setFormatter(_Plain(command))
    log.handlers, level = [handler], log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.handlers = []
        log.setLevel(level)


class _Said(logging.Handler):
    """On stderr, above the bars where there are some."""

    def emit(self, record: logging.LogRecord) -> None:
        progress.say(self.format(record))


class _Plain(logging.Formatter):
    def __init__(self, command: Command) -> None:
        super().__init__()
        self.command = command

    def format(self, record: logging.LogRecord) -> str:
        kind = "notice" if record.levelno < logging.WARNING else "warning"
        return f"{kind}: {self._text(record)}"

    def _text(self, record: logging.LogRecord) -> str:
        text = self._worded(record.msg)
        if isinstance(record.args, tuple) and record.args:
            return str(text) % tuple(map(self._worded, record.args))
        return str(text)

    def _worded(self, part: Any) -> Any:
        message = part.message if isinstance(part, InputError) else part
        return self.command.worded(message) if isinstance(message, Message) else part


class _Once(logging.Filter):
    """What there is to say about a folder is said once, however often a command reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        fresh = record.getMessage() not in self.said
        self.said.add(record.getMessage())
        return fresh
