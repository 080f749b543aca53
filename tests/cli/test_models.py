"""`refocus models` and `zero-shot`: the names of classes, and the table in the documents."""

from __future__ import annotations

from pathlib import Path

from refocus.cli.models import class_names, markdown, spoken
from tests.makers import DOCS, invoke


def test_names_come_from_a_file_or_folders_and_are_spoken(tmp_path: Path) -> None:
    for name in ("n02123045", "sea_star"):
        (tmp_path / "images" / name).mkdir(parents=True)
    listed = tmp_path / "names.txt"
    listed.write_text("ant\nbee\n\n")
    assert class_names(str(tmp_path / "images")) == ["n02123045", "sea_star"]
    assert class_names(str(listed)) == ["ant", "bee"]
    assert [spoken(name) for name in ("n02123045", "sea_star")] == ["tabby", "sea star"]


def test_the_docs_list_the_families_of_the_table() -> None:
    assert (DOCS / "models.md").read_text() == markdown()
    shown = invoke("models")
    assert "BEiT" in shown
    assert "…" not in shown  # names are to be copied
