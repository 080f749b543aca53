"""Shifts as folders: the same pixels as on the fly, resumable, and what cannot be read is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refocus.data import composites, shift_folders, shifts
from refocus.data.folders import folder_samples
from refocus.data.images import read_image


def test_the_written_folder_is_an_image_folder_with_the_same_pixels(
    image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    samples = folder_samples(*image_folders)
    content = shift_folders.write(samples, tmp_path, ["mixed-rand", "size"], seed=3)
    assert content["written"] == {"mixed-rand": 24, "size": 7 * 24}
    assert len(list((tmp_path / "mixed-rand").glob("*/*.png"))) == 24
    shift, some = shifts.shifts(samples, "mixed-rand", 3)[0]
    for sample in some:
        file = tmp_path / "mixed-rand" / sample.image.parent.name / f"{sample.image.stem}.png"
        assert read_image(file).tobytes() == shift(sample).tobytes()
    assert sorted(p.name for p in (tmp_path / "size").iterdir()) == [
        "001", "002", "005", "010", "020", "050", "100",
    ]  # fmt: skip
    assert json.loads((tmp_path / "shifts.json").read_text())["seed"] == 3


def test_writing_goes_on_where_it_stopped_and_names_what_cannot_be_read(
    image_folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = folder_samples(*image_folders)
    shift_folders.write(samples, tmp_path, ["only-fg"], seed=0)
    (tmp_path / "only-fg" / "cat" / "2.png").unlink()
    made = []
    genuine = composites.on_black
    monkeypatch.setattr(composites, "on_black", lambda scene: made.append(1) or genuine(scene))
    shift_folders.write(samples, tmp_path, ["only-fg"], seed=0)
    assert len(made) == 1
    merged = shift_folders.write(samples[6:], tmp_path, ["mixed-next"], seed=0)
    assert merged["written"] == {"only-fg": 24, "mixed-next": 18}
    samples[0].image.write_text("no image")
    content = shift_folders.write(samples, tmp_path / "again", ["only-fg"], seed=0)
    assert content["written"]["only-fg"] == 23
    assert "ant/0.png" in next(iter(content["skipped"].values()))
