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


@pytest.mark.parametrize("kind", ["levels", "size"])
def test_masks_that_cannot_be_used_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model_folder: Path,
    image_folders: tuple[Path, Path],
    kind: str,
) -> None:
    images, masks = image_folders
    given = ("--model", model_folder, "--images", images, "--masks", masks)

    def spoil(folder: Path) -> None:
        for file in folder.rglob("*.png"):
            values = np.asarray(Image.open(file))
            Image.fromarray(values // 255 * 100 if kind == "levels" else values[:9]).save(file)

    spoil(masks / "bee")
    assert run(monkeypatch, "check", *given) == 0
    rows = [
        [part.strip() for part in line.split("│")] for line in capsys.readouterr().out.split("\n")
    ]
    assert ["1", "bee", "6", "0"] in [row[1:5] for row in rows]
    assert ["2", "cat", "6", "6"] in [row[1:5] for row in rows]
    spoil(masks)
    assert run(monkeypatch, "check", *given) == 2
    said = capsys.readouterr().err
    assert (
        f"--masks {masks}: none of the 24 masks that were examined can be used; the first" in said
    )


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
