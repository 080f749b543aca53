"""`refocus models`: the table, and the document that is made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from refocus.vit import catalogue
from tests.makers import DOCS, invoke, run


def test_the_docs_list_the_families_of_the_table() -> None:
    assert (DOCS / "models.md").read_text(encoding="utf-8") == catalogue.markdown()
    shown = invoke("models")
    assert "BEiT" in shown
    assert "…" not in shown  # names are to be copied


def test_a_file_that_exists_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "models.md"
    assert run(monkeypatch, "models", "--out", file) == 0
    assert file.read_text(encoding="utf-8") == catalogue.markdown()
    assert run(monkeypatch, "models", "--out", file) == 2
    assert f"--out {file}: exists and is not overwritten" in capsys.readouterr().err
    assert run(monkeypatch, "models", "--out", tmp_path / "absent" / "models.md") == 2
    assert "cannot be written" in capsys.readouterr().err
