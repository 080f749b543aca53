"""Shifts as folders: what is written, added later, and refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import refocus
from refocus.data import shifts as on_the_fly
from refocus.data.folders import folder_samples

Folders = tuple[Path, Path]


def test_each_kind_is_a_folder_and_holds_what_is_made_on_the_fly(
    image_folders: Folders, tmp_path: Path
) -> None:
    images, masks = image_folders
    made = refocus.shifts(
        str(images), masks, tmp_path / "out", refocus.ShiftSettings(kinds=("mixed-rand", "size"))
    )
    levels = len(on_the_fly.KINDS["size"].levels)
    assert made.written == {"mixed-rand": 24, "size": 24 * levels}
    assert not made.skipped
    samples = folder_samples(images, masks)
    ((shift, some),) = on_the_fly.shifts(samples, "mixed-rand", 0)
    place = Path("mixed-rand", some[5].image.parent.name, f"{some[5].image.stem}.png")
    with Image.open(made.folder / place) as written:
        assert written.tobytes() == shift(some[5]).tobytes()


def test_further_kinds_are_added_and_other_settings_refused(
    image_folders: Folders, tmp_path: Path
) -> None:
    first = refocus.shifts(*image_folders, tmp_path / "out", refocus.ShiftSettings(("only-fg",)))
    second = refocus.shifts(*image_folders, tmp_path / "out", refocus.ShiftSettings(("only-bg",)))
    assert first.written == {"only-fg": 24}
    assert second.written == {"only-fg": 24, "only-bg": 24}
    with pytest.raises(refocus.InputError, match=r"seed: 0 then, 1 now"):
        refocus.shifts(*image_folders, tmp_path / "out", refocus.ShiftSettings(("no-fg",), seed=1))
    with pytest.raises(refocus.InputError, match=r"out.*already exists"):
        refocus.shifts(*image_folders, tmp_path / "out", resume=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ("blur",)}, r"kinds blur: no such shift; choose one of all, only-fg"),
        ({"mask_score": 2}, r"mask_score 2: must be a number"),
        ({"workers": -1}, r"workers -1: must be a whole number between 0 and 256"),
        ({"kinds": ("real",)}, r"backgrounds, a folder of images"),
    ],
)
def test_wrong_settings_write_nothing(
    image_folders: Folders, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(refocus.InputError, match=message):
        refocus.shifts(*image_folders, tmp_path / "out", refocus.ShiftSettings(**settings))
    assert not (tmp_path / "out").exists()


def test_real_backgrounds_come_from_a_folder(image_folders: Folders, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for number in range(2):
        Image.new("RGB", (60, 50), (0, 90 * number, 200)).save(scenes / f"{number}.png")
    settings = refocus.ShiftSettings(kinds=("real",), backgrounds=str(scenes))
    made = refocus.shifts(*image_folders, tmp_path / "out", settings)
    assert made.written == {"real": 24}
    with pytest.raises(refocus.InputError, match="lies inside backgrounds"):
        refocus.shifts(*image_folders, scenes / "out", settings)
