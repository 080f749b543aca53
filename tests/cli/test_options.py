"""Options are made of the fields of settings, once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from refocus.cli import main
from refocus.cli.options import settings_from, with_settings
from refocus.demo.settings import DemoSettings
from refocus.errors import InputError
from refocus.evaluation.settings import EvaluationSettings, ShiftSettings
from refocus.masks.settings import MaskSettings
from refocus.probes.settings import ProbeSettings
from refocus.reports.settings import AuditSettings, ReportSettings
from refocus.settings import Folders, PathText, Text, about, check, settings_of
from refocus.studies.settings import StudySettings
from refocus.tuning.recipe import Recipe

SETTINGS = {
    "audit": AuditSettings,
    "demo": DemoSettings,
    "evaluate": EvaluationSettings,
    "masks": MaskSettings,
    "probe": ProbeSettings,
    "report": ReportSettings,
    "shifts": ShiftSettings,
    "study": StudySettings,
    "tune": Recipe,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_command_has_an_option_for_every_field_of_its_settings(name: str) -> None:
    command = typer.main.get_command(main.app).commands[name]  # type: ignore[attr-defined]
    options = {option.name: option for option in command.params}
    for setting in settings_of(SETTINGS[name]):
        assert setting.about, f"{setting.name}: says nothing about itself"
        assert options[setting.name].help


@pytest.mark.parametrize("module", sorted({kind.__module__ for kind in SETTINGS.values()}))
def test_reading_settings_loads_no_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@dataclass(frozen=True)
class Trip:
    """For these tests."""

    stops: Annotated[Folders, about("Where.")]
    bags: Annotated[tuple[Text, ...], about("What.")] = ("hat", "map")
    guide: Annotated[PathText | None, about("Which book.")] = None
    costs: Annotated[dict[str, float], about("How much.")] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self)


def _trip(*words: str) -> Trip:
    app, made = typer.Typer(), list[Trip]()

    @app.command()
    @with_settings(Trip, spelt={"stops": "stop", "bags": "bag"})
    def trip(**given: Any) -> None:
        made.append(Trip(**settings_from(Trip, given)))

    app(list(words), standalone_mode=False)
    return made[0]


def test_what_may_be_repeated_may_be_separated_by_commas() -> None:
    found = _trip("--stop", "a=x", "--stop", "b=y", "--bag", "pen, cup", "--bag", "tea")
    assert found.stops == {"a": "x", "b": "y"}
    assert found.bags == ("pen", "cup", "tea")


def test_what_is_not_given_keeps_its_default() -> None:
    assert _trip("--stop", "a=x") == Trip({"a": "x"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stop", "a"], "stops a: must be NAME=PATH"),
        (["--stop", "a/b=x"], "stops a/b=x: must be NAME=PATH"),
        (["--stop", "a=x", "--stop", "a=y"], "stops a=y: the name 'a' is used twice"),
        (["--stop", "a=x", "--costs", "b=y"], "costs b=y: must be NAME=NUMBER"),
        (["--stop", "a=x", "--bag", "pen,"], "bags .*: must be a text that is not empty|bags"),
    ],
)
def test_pairs_and_words_that_are_none_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _trip(*words)


@pytest.mark.parametrize(("given", "found"), [("auto", "auto"), ("0", 0), ("12", 12)])
def test_workers_are_a_number_or_auto(given: str, found: int | str) -> None:
    values = settings_from(AuditSettings, {"workers": given})
    assert AuditSettings(**values).workers == found


@pytest.mark.parametrize("given", ["all", "-1", "1.5", "257", "--1"])
def test_other_workers_are_refused(given: str) -> None:
    values = settings_from(AuditSettings, {"workers": given})
    with pytest.raises(InputError, match=f"workers {given}.*: must be a whole number"):
        AuditSettings(**values)


def test_help_says_what_is_a_path_and_what_is_given_where_nothing_is() -> None:
    app = typer.Typer()
    app.command()(with_settings(Trip)(lambda **given: None))
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "<NAME=PATH>" in shown
    assert "<path>" in shown
    assert "<NAME=NUMBER>" in shown
    assert "(hat, map)" in shown
