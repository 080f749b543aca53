"""What help lists of the tables, without loading them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from refocus.cli.main import COMMANDS, listed
from refocus.cli.rows import rows, text
from refocus.objectives import registry
from refocus.objectives.registry import OBJECTIVES, Objective
from refocus.plugins import Table
from tests.makers import install

OBJECTIVE_TABLE = "refocus.objectives.registry:OBJECTIVES"


def test_the_kept_rows_are_those_of_the_tables() -> None:
    kept = files("refocus").joinpath("assets", "rows.json").read_text(encoding="utf-8")
    assert kept == text(listed()), "run `python scripts/help_rows.py`"


def test_every_table_that_help_names_has_kept_rows() -> None:
    assert set(listed()) == set(json.loads(text(listed())))
    assert rows(OBJECTIVE_TABLE) == {name: row.about for name, row in OBJECTIVES.items()}


def test_help_of_no_command_loads_torch() -> None:
    code = """
import sys
from refocus.cli.main import COMMANDS, app
for name in COMMANDS:
    for option in ("--help", "--advanced"):
        app([name, option], standalone_mode=False)
sys.exit(" ".join({"torch", "timm", "numpy", "transformers"} & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.count("--advanced") >= len(COMMANDS) // 2
    assert "mixed-rand" in done.stdout


def test_help_lists_the_rows_of_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "from dataclasses import replace\n"
    code += "from refocus.objectives.registry import OBJECTIVES\n"
    code += "ROW = replace(OBJECTIVES['swap'], about='an objective of ours')\n"
    points = "[refocus.objectives]\nlisted = plug_listed:ROW\n"
    install(tmp_path, "plug_listed", code, points)
    fresh = Table("refocus.objectives", OBJECTIVES.own, Objective)  # a table reads them once
    monkeypatch.setattr(registry, "OBJECTIVES", fresh)
    assert rows(OBJECTIVE_TABLE)["listed"] == "an objective of ours"
