"""Help: panels, rarely used options behind --advanced, examples that run, earlier names."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from refocus.cli import main, panels
from refocus.cli.options import settings_from
from refocus.demo.settings import DemoSettings
from refocus.evaluation.settings import EvaluationSettings
from refocus.flow.settings import RunSettings
from refocus.studies.settings import StudySettings
from refocus.tuning.recipe import Recipe

SETTINGS: dict[str, Any] = {  # of commands whose options are these alone
    "demo": DemoSettings,
    "run": RunSettings,
    "tune": Recipe,
    "evaluate": EvaluationSettings,
    "study": StudySettings,
}


def commands() -> dict[str, Any]:
    return typer.main.get_command(main.app).commands  # type: ignore[attr-defined,no-any-return]


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(main.app, list(arguments), env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result.output


def test_options_stand_in_panels_in_the_order_of_a_run() -> None:
    text = shown("tune", "--help")
    titles = [f"─ {title} ─" for title in panels.PANELS]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    for title, option in (
        ("Data", "--images"),
        ("Model", "--model"),
        ("Objective", "--objective"),
        ("Schedule", "--epochs"),
        ("Safety", "--tolerance"),
        ("Output", "--out"),
    ):
        panel = text.split(f"─ {title} ─")[1].split("╰─")[0]
        assert f"{option} " in panel, title


def test_every_option_has_a_panel_and_no_name_stands_in_two() -> None:
    every = [name for names in panels.PANELS.values() for name in names]
    assert len(every) == len(set(every))
    assert set(every) >= panels.RARE
    assert "Other" not in shown("tune", "--advanced")


@pytest.mark.parametrize("arguments", [("--help", "--advanced"), ("--advanced",)])
def test_rarely_used_options_are_behind_advanced(arguments: tuple[str, ...]) -> None:
    short, whole = shown("tune", "--help"), shown("tune", *arguments)
    for option in ("--lr-decay-every", "--second-order", "--names", "--recompute"):
        assert option not in short
        assert option in whole
    assert "--lr " in short
    assert "Rarely used options: refocus tune --help --advanced" in short
    assert "Rarely used options" not in whole
    assert "--lr-decay-every" not in shown("tune", "--help")  # nothing is remembered


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_examples_that_it_understands(name: str) -> None:
    assert 2 <= len(panels.EXAMPLES[name]) <= 3
    text = shown(name, "--help")
    for what, line in panels.EXAMPLES[name]:
        assert what in text
        program, *words = shlex.split(line)
        assert program == "refocus"
        found = main.TWO_WORDS.get(tuple(words[:2]))  # type: ignore[arg-type]
        rest = words[2:] if found else words[1:]
        # both raise for what they do not know or cannot use
        context = commands()[found or words[0]].make_context(name, rest)
        if name in SETTINGS and context.params.get("name") != "list":
            kind = SETTINGS[name]
            kind(**settings_from(kind, context.params))


def test_a_hidden_option_is_still_taken() -> None:
    words = ["--model", "m", "--images", "i", "--masks", "k", "--out", "o", "--lr-decay-every", "3"]
    assert commands()["tune"].make_context("tune", words).params["lr_decay_every"] == 3


def test_probe_list_and_run_and_their_earlier_names() -> None:
    listed = shown("probe", "list")
    assert "permutation" in listed
    assert shown("probes") == listed
    assert " probes " not in shown("--help")
    assert "probe run" in " ".join(shown("probe", "run", "--help").split())
    assert "--kind" in shown("probe", "--help")
    assert shown("study", "run", "list") == shown("study", "list")
