"""What every command prints: tables for people, or with --json its typed result for programs."""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from refocus import processes, progress
from refocus.cli.options import signature_of
from refocus.cli.printing import console
from refocus.records import to_json

Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print no progress and no notices, only warnings and the result."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print only the result, as JSON, on stdout.")]
EVERYWHERE = ("quiet", "as_json")  # parameters that every command has


def answering(command: Callable[..., Any]) -> Callable[..., None]:
    """A command with --quiet and --json; what it returns is its result."""

    @functools.wraps(command)
    def answered(*, quiet: bool, as_json: bool, **given: Any) -> None:
        first = processes.place().first  # of several processes one speaks
        with _printing(tables=first and not as_json, notices=first and not quiet):
            result = command(**given)
        if as_json and first and result is not None:
            print(json.dumps(to_json(result), indent=2, allow_nan=False))

    signature = signature_of(command)
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in signature.parameters.values()]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in zip(EVERYWHERE, (Quiet, Json), strict=True)
    ]
    every = [*own, *more]
    # both are read by Typer; what the command itself returns cannot be evaluated without torch
    answered.__annotations__ = {p.name: p.annotation for p in every} | {"return": None}
    answered.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=every, return_annotation=None
    )
    return answered


@contextmanager
def _printing(*, tables: bool, notices: bool) -> Iterator[None]:
    log, before = logging.getLogger("refocus"), console.quiet
    console.quiet = not tables
    if not notices:
        log.setLevel(logging.WARNING)  # `refocus.cli.wording` puts it back
    try:
        with progress.silent(not notices):
            yield
    finally:
        console.quiet = before
