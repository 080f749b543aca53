"""A parameter that the library names is the option of the command that runs."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import typer

import refocus
from refocus.cli import main
from refocus.cli.wording import Command
from refocus.errors import InputError, Message
from tests.makers import run


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


def test_every_parameter_that_the_library_names_is_one_of_some_command() -> None:
    source = Path(refocus.__file__).parent
    commands = typer.main.get_command(main.app).commands.values()  # type: ignore[attr-defined]
    known = {name for command in commands for name in command._declared}
    for file in source.rglob("*.py"):
        for name in re.findall(r"‹(\w+)(?:=[^›]*)?›", file.read_text(encoding="utf-8")):
            assert name in known, f"{file.name}: ‹{name}› would be shown as an option there is not"


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


# --- what Typer has against a command line --------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tun"], "No such command 'tun'. Did you mean 'tune', 'run'? (see `refocus --help`)"),
        (
            ["tune", "--shot", "3"],
            "--shot: no such option; did you mean --shots? (see `refocus tune --help`)",
        ),
        (["tune", "--zzz"], "--zzz: no such option (see `refocus tune --help`)"),
        (["masks"], "IMAGES: missing (see `refocus masks --help`)"),
        (["masks", "a"], "--out: missing (see `refocus masks --help`)"),
        (["masks", "a", "--out", ""], "--out: is empty"),
        (["masks", "a", "--out=", "--size", "80"], "--out: is empty"),
        (["masks", " ", "--out", "b"], "IMAGES: is empty"),
        (["masks", "a", "--out", "b", "--from", "png", ""], "--from: is empty"),
        (["app", "--model", "m", "--host", ""], "--host: is empty"),
        (
            ["evaluate", "--model", "m", "--on", "a=b", "--out", "c", "--shift", ""],
            "--shift: is empty",
        ),
        (["probe", "--model", "m", "--out", "c", "--kind", ""], "--kind: is empty"),
        (["tune", "--model", ""], "--model: is empty"),
        (["tune", "--weight", "kl=x"], "--weight kl=x: must be NAME=NUMBER"),
    ],
)
def test_what_cannot_be_parsed_is_one_line(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert capsys.readouterr() == ("", f"error: {said}\n")


@pytest.mark.parametrize("arguments", [[], ["-h"], ["tune", "-h"], ["--version"]])
def test_help_is_no_error(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 0
    out, err = capsys.readouterr()
    assert out
    assert not err


def test_help_lists_the_rows_of_the_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from refocus.objectives import registry, regularizers

    assert run(monkeypatch, "tune", "--help") == 0
    shown = capsys.readouterr().out
    for name in (*registry.OBJECTIVES, *regularizers.REGULARIZERS, "DeiT-S"):
        assert name in shown


def test_help_speaks_of_the_options_and_arguments_that_a_command_has() -> None:
    shown = {option.name: option.help or "" for option in _command("masks").params}
    assert "such as IMAGES itself" in shown["learn_from"]
    assert "With --from png" in shown["ignore"]
    for name, command in typer.main.get_command(main.app).commands.items():  # type: ignore[attr-defined]
        for option in command.params:
            assert "‹" not in (getattr(option, "help", "") or ""), name
