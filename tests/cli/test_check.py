"""`refocus check` says how it understood the input, and refuses what every command refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.makers import run


def test_classes_counts_coverage_and_thumbnails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    images, masks = image_folders
    (masks / "bee" / "0.png").unlink()
    (images / "bee" / "1.png").write_text("no image")
    (images / "cat" / "notes.txt").touch()
    page = tmp_path / "check.html"
    given = ("--model", model_folder, "--images", images, "--masks", masks, "--out", page)
    assert run(monkeypatch, "check", *given) == 0
    said = capsys.readouterr()
    assert "4 outputs; 32 x 32 pixels" in said.out
    assert "cannot be used" in said.out
    assert "1 files are left out (1 .txt)" in said.err
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure>") == 10
    assert "<td>1</td><td>bee</td><td>6</td><td>5</td>" in text
    assert "1 files are left out (1 .txt)" in text


@pytest.mark.parametrize("what", ["inverted masks", "unknown class", "out inside"])
def test_what_every_command_refuses(
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    what: str,
) -> None:
    images, masks = image_folders
    if what == "inverted masks":
        for file in masks.glob("*/*.png"):
            with Image.open(file) as mask:
                values = 255 - np.asarray(mask)
            Image.fromarray(values).save(file)
    if what == "unknown class":
        (images / "ant").rename(images / "zebra")
        (masks / "ant").rename(masks / "zebra")
    out = images / "check.html" if what == "out inside" else tmp_path / "check.html"
    given = ("--model", model_folder, "--images", images, "--masks", masks, "--out", out)
    assert run(monkeypatch, "check", *given) == 2
    assert not out.exists()
