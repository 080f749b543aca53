"""What the library says, in the words of the command that runs: a parameter that a text marks
(see `refocus.errors`) becomes the option or the argument that the command declares for it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_type_hints

from typer.core import TyperCommand

from refocus.cli.options import Called
from refocus.errors import InputError, Message


class Command(TyperCommand):
    """A command whose errors and notices name its own options."""

    def invoke(self, ctx: Any) -> Any:
        """Run it; an InputError comes out with options in place of parameters."""
        with _notices(self):
            try:
                return super().invoke(ctx)
            except InputError as error:
                raise InputError(self.worded(error.message)) from error

    def worded(self, message: Message) -> str:
        """The text of a message with this command's options."""
        return message.worded(self._words)

    def _words(self, name: str, value: str | None) -> str:
        """`--name`, `--name value`, `--no-name` for a switch that is off, or METAVAR."""
        declared = self._declared.get(name)
        if declared is None:
            return option(name) if value is None else f"{option(name)} {value}"
        if declared.param_type_name == "argument":
            shown = (declared.metavar or declared.name).upper()
        elif value in ("True", "False") and declared.is_flag:
            on, off = declared.opts[0], [*declared.secondary_opts, declared.opts[0]][0]
            return str(on if value == "True" else off)
        else:
            shown = max(declared.opts, key=len)
        return shown if value is None else f"{shown} {value}"

    @property
    def _declared(self) -> dict[str, Any]:
        """The library's name of a parameter -> the option or argument for it here."""
        found = {declared.name: declared for declared in self.params}
        function = inspect.unwrap(self.callback) if self.callback else None
        hints = get_type_hints(function, include_extras=True) if function else {}
        for name, hint in hints.items():
            for extra in getattr(hint, "__metadata__", ()):
                if isinstance(extra, Called):
                    found.setdefault(extra.name, found[name])
        return found


def option(name: str) -> str:
    """How an option is spelt that belongs to a parameter of this name."""
    return f"--{name.replace('_', '-')}"


@contextmanager
def _notices(command: Command) -> Iterator[None]:
    """Notices and warnings of the library go to stderr, one line each."""
    log, handler = logging.getLogger("refocus"), logging.StreamHandler()
    handler.addFilter(_Once())
    handler.setFormatter(_Plain(command))
    log.handlers, level = [handler], log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.handlers = []
        log.setLevel(level)


class _Plain(logging.Formatter):
    def __init__(self, command: Command) -> None:
        super().__init__()
        self.command = command

    def format(self, record: logging.LogRecord) -> str:
        kind = "notice" if record.levelno < logging.WARNING else "warning"
        return f"{kind}: {self._text(record)}"

    def _text(self, record: logging.LogRecord) -> str:
        text = record.msg
        if isinstance(text, Message):
            text = self.command.worded(text)
        if not isinstance(record.args, tuple):
            return record.getMessage()
        said = (
            self.command.worded(part.message) if isinstance(part, InputError) else part
            for part in record.args
        )
        return str(text) % tuple(said) if record.args else str(text)


class _Once(logging.Filter):
    """A folder may be read several times in one command; what there is to say about it is said
    once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        fresh = record.getMessage() not in self.said
        self.said.add(record.getMessage())
        return fresh
