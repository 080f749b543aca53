"""What every command prints: --json, --quiet, progress of each phase, colours, completion."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from refocus import progress
from refocus.cli import printing
from refocus.cli.main import COMMANDS, app
from refocus.figures.tables import Row
from refocus.records import to_json
from refocus.reports.explanations import read as read_explanations
from refocus.results import Compared, Estimate
from tests.makers import ROOT, invoke, run

ON_IMAGES = "--model {model} --images {images} --masks {masks}"
# command -> its arguments, and the file in its folder that holds the same as --json prints
WRITES = {
    "audit": (f"{ON_IMAGES} --most 8", "audit.json"),
    "tune": (f"{ON_IMAGES} --epochs 1", "results.json"),
    "evaluate": ("--model {model} --on own={images}", "results.json"),
    "run": (f"{ON_IMAGES} --epochs 1 --shots 1 --most 8", "run.json"),
}


def printed(*arguments: object) -> str:
    """What a command writes to stdout; notices go to stderr."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def _arguments(text: str, model: Path, folders: tuple[Path, Path]) -> list[str]:
    return text.format(model=model, images=folders[0], masks=folders[1]).split()


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITES)
def test_json_is_the_typed_result_and_nothing_else(
    name: str, model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    text, file = WRITES[name]
    given = _arguments(text, model_folder, image_folders)
    said = printed(name, *given, "--out", tmp_path / "out", "--json")
    assert json.loads(said) == json.loads((tmp_path / "out" / file).read_text())


def test_json_of_what_has_no_file_of_its_own(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    out = tmp_path

    def said(*arguments: object) -> Any:
        return json.loads(printed(*arguments, "--json"))

    made = said("masks", images, "--from", "png", masks, "--out", out / "masks")
    assert (len(made["scores"]), made["folder"]) == (24, str(out / "masks"))
    given = ("--model", model_folder, "--out", out / "look")
    rows = read_explanations(
        Path(invoke("explain", images / "ant", *given) and out / "look" / "explanations.json")
    )
    assert said("explain", images / "ant", *given) == to_json(rows)
    assert said("check", "--model", model_folder, "--images", images)["outputs"] == 4
    shifted = said("shifts", images, "--masks", masks, "--kind", "only-fg", "--out", out / "s")
    assert shifted["written"] == {"only-fg": 24}
    probed = said("probe", "--model", model_folder, "--images", images, "--kind", "cutout",
                  "--most", 8, "--out", out / "probes")  # fmt: skip
    assert probed["cutout"]["kind"] == "cutout"
    assert said("report", out / "probes")["page"] == str(out / "probes" / "probes.html")
    assert "cutout" in said("probes")
    assert "ViT" in " ".join(said("models"))
    assert "figure6" in said("study", "list")


def test_every_command_but_the_app_has_both_options() -> None:
    for name in set(COMMANDS) - {"app"}:
        shown = invoke(name, "--help")
        assert "--json" in shown, name
        assert "--quiet" in shown, name


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setattr(progress, "begun", _nothing)


class _nothing:  # noqa: N801 - stands in for a function
    """No thread that speaks: the phases speak for themselves."""

    def __init__(self, _title: str) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


PHASES = {
    "audit": ["images: standard (model)", "images: shifts", "pictures of the worst"],
    "tune": ["reading images and masks", "tuning (refocus)", "validation", "does no harm"],
}


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", PHASES)
def test_every_phase_says_how_far_it_is_on_stderr(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = _arguments(WRITES[name][0], model_folder, image_folders)
    assert run(monkeypatch, name, *given, "--out", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert all(line.strip() for line in said.err.splitlines())
    for phase in PHASES[name]:
        assert f"{phase}" in said.err
        assert phase not in said.out


@pytest.mark.usefixtures("eager")
def test_quiet_leaves_the_result_alone(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = _arguments(WRITES["audit"][0], model_folder, image_folders)
    assert run(monkeypatch, "audit", *given, "--out", tmp_path / "out", "--quiet") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "open in a browser" in said.out


@pytest.mark.slow
def test_the_shell_completes_commands_and_options() -> None:
    def completed(*words: str) -> str:
        env = {
            **os.environ,
            "_REFOCUS_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(("refocus", *words)),
            "COMP_CWORD": str(len(words)),
        }
        done = subprocess.run(
            [sys.executable, "-m", "refocus"], env=env, capture_output=True, text=True, check=False
        )
        return done.stdout

    assert completed("ev").split() == ["evaluate"]
    assert "--epochs" in completed("tune", "--ep")


NAMES = ["bird [land]", "bird [water]", "cat [/dog]", "runs[lr=3]", "at :cat: home", "end\\"]


def test_names_and_paths_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    number = Compared(Estimate(50.0, None, 20))
    printing.print_rows([Row(name, name, number) for name in NAMES], ("suite", "group", "n", "%"))
    printing.console.print(*NAMES, soft_wrap=True)
    out = capsys.readouterr().out
    for name in NAMES:
        assert out.count(name) == 3, name


def test_bars_show_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    monkeypatch.setenv("COLUMNS", "200")
    file = io.StringIO()
    with contextlib.redirect_stderr(file):
        for name in NAMES:
            with progress.phase(name, 2):
                progress.say(f"says {name}")
    for name in NAMES:
        assert file.getvalue().count(name) >= 2, name


def test_no_place_reads_names_as_markup() -> None:
    for file in sorted((ROOT / "src").rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                given = {word.arg: ast.unparse(word.value) for word in call.keywords}
                called = ast.unparse(call.func)
                if called in ("Console", "TextColumn"):
                    assert given.get("markup") == "False", f"{file}: {called} without markup=False"
                assert given.get("markup", "False") == "False", f"{file}: {called}"
                if "from_markup" in called:  # help, which is ours
                    assert file.name == "panels.py", f"{file}: {called}"


@pytest.mark.slow
def test_no_color_takes_the_colours_out() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "refocus", "study", "list"],
        env={**os.environ, "FORCE_COLOR": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "\x1b[3" not in done.stdout
