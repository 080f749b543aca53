"""The list of probes and their page."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from refocus.cli import main as command
from refocus.probes import registry
from tests.probes.makers import run


def test_the_list_and_the_report(folders: dict[str, Path], tmp_path: Path) -> None:
    listed = CliRunner().invoke(command.app, ["probes"], env={"COLUMNS": "200"}).output
    for name in registry.PROBES:
        assert name in listed
    run(
        "--model",
        folders["model"],
        "--images",
        folders["images"],
        "--out",
        tmp_path / "o",
        "--kind",
        "cutout",
        "--most",
        4,
    )
    page = (tmp_path / "o" / "probes.html").read_text()
    (tmp_path / "o" / "probes.html").unlink()
    result = CliRunner().invoke(
        command.app, ["report", str(tmp_path / "o")], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert (tmp_path / "o" / "probes.html").read_text() == page
