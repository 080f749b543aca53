"""A parameter that the library names is the option of the command that runs."""

from __future__ import annotations

import logging

import pytest
import typer

from refocus.cli import main
from refocus.cli.wording import Command
from refocus.errors import InputError, Message


def _command(name: str) -> Command:
    found = typer.main.get_command(main.app).commands[name]  # type: ignore[attr-defined]
    assert isinstance(found, Command)
    return found


@pytest.mark.parametrize(
    ("command", "marked", "said"),
    [
        ("tune", "‹mask_score› 2: too much", "--mask-score 2: too much"),
        ("tune", "only with ‹do_no_harm=False›", "only with --no-do-no-harm"),
        ("tune", "only with ‹do_no_harm=True›", "only with --do-no-harm"),
        ("tune", "only with ‹lr=auto›", "only with --lr auto"),
        ("tune", "‹weights› kl=x: no number", "--weight kl=x: no number"),
        ("tune", "‹run› a: complete", "--resume a: complete"),
        ("masks", "‹images› a: no such folder", "IMAGES a: no such folder"),
        ("masks", "‹source› png: no such folder", "--from png: no such folder"),
        ("audit", "‹images› a: no such folder", "--images a: no such folder"),
        ("evaluate", "‹suites› a=b: no such folder", "--on a=b: no such folder"),
        ("explain", "‹target› cat: unknown", "--class cat: unknown"),
        ("demo", "‹batch_size› 0: too few", "--batch-size 0: too few"),
    ],
)
def test_a_parameter_becomes_the_option_of_the_command(
    command: str, marked: str, said: str
) -> None:
    assert _command(command).worded(Message(marked)) == said


def _fails() -> None:
    logging.getLogger("refocus").warning(Message("‹skip_bad›: %s"), InputError("‹shots› 3"))
    raise InputError("‹skip_bad›: refused")


def test_notices_and_errors_of_a_command_name_its_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = typer.Typer()
    app.command("one", cls=Command)(_fails)
    with pytest.raises(InputError, match=r"^--skip-bad: refused$"):
        app([], standalone_mode=False)
    assert capsys.readouterr().err == "warning: --skip-bad: --shots 3\n"
    assert not logging.getLogger("refocus").handlers


def test_every_command_translates() -> None:
    commands = typer.main.get_command(main.app).commands  # type: ignore[attr-defined]
    assert [name for name, found in commands.items() if not isinstance(found, Command)] == []
