"""docs/schema.md says what is written."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from refocus import outputs
from refocus.evaluation.stored import read_evaluation
from refocus.records import MapRecord, Prediction, read_records, to_json
from tests.makers import DOCS, ROOT, run


def test_the_document_is_that_of_the_code() -> None:
    schema = runpy.run_path(str(ROOT / "scripts" / "schema.py"))
    written = (DOCS / "schema.md").read_text(encoding="utf-8")
    assert written == schema["text"](), "run `python scripts/schema.py`"


def test_every_file_is_of_the_records_that_the_document_names(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    images, masks = image_folders
    given = ["--model", model_folder, "--on", f"a={images}", "--masks", f"a={masks}"]
    out = tmp_path / "ev"
    shifts = ["--shift", "mixed-rand,size", "--most", 6]
    assert run(monkeypatch, "evaluate", *given, *shifts, "--out", out) == 0
    assert complete(out / "results.json", to_json(read_evaluation(out / "results.json")))
    assert complete(out / outputs.MANIFEST, to_json(outputs.manifest_of(out)))
    stages = {path.name.split(".")[0] for path in (out / "records" / "a").iterdir()}
    assert stages == {"standard", "mixed-rand", "maps", *(f"size-{level}" for level in LEVELS)}
    for stage in stages:
        kind: type[Any] = MapRecord if stage == "maps" else Prediction
        file = out / "records" / "a" / f"{stage}.model.jsonl"
        found = read_records(file, kind)
        assert found.rows
        named = {"sum", *(field for row in found.rows for field in to_json(row))}
        lines = map(json.loads, file.read_text().splitlines())
        assert all(set(line) <= named for line in lines)  # nothing that the document does not name


LEVELS = ("001", "002", "005", "010", "020", "050", "100")


def complete(file: Path, known: Any) -> bool:
    """Every field of the file is one that was read."""
    return json.loads(file.read_text(encoding="utf-8")) == known
