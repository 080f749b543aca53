"""The data of a study: a user's own folder is split."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from refocus import InputError
from refocus.studies import datasets
from refocus.vit import loading
from tests.makers import make_images


def test_one_image_folder_is_split(place: Path, tmp_path: Path) -> None:
    images, masks = make_images(tmp_path / "flat", count=8)
    ground = datasets.own(
        images,
        ({"model": str(place / "model")}, loading.load(place / "model")),
        {"annotated": masks},
        tmp_path / "out",
        most=4,
        seed=0,
        kinds=(),
    )
    parts = [
        {p.name for p in (ground.train.parent / part / "ant").iterdir()}
        for part in ("train", "test")
    ]
    assert [len(part) for part in parts] == [4, 4]
    assert not parts[0] & parts[1]
    assert {p.stem for p in (ground.masks["annotated"] / "ant").iterdir()} == {
        Path(n).stem for n in parts[0]
    }


def test_copies_of_a_photo_are_in_one_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, masks = make_images(tmp_path / "flat", ["ant", "bee"], count=4)
    for folder in (images, masks):
        for file in sorted(folder.glob("*/*.png")):
            shutil.copy(file, file.with_name(f"{file.stem}b.png"))
    split, _ = datasets._split(images, {"annotated": masks}, tmp_path / "out")
    halves = [{f.read_bytes() for f in split.glob(f"{part}/*/*")} for part in ("train", "test")]
    assert [len(half) for half in halves] == [4, 4]
    assert not halves[0] & halves[1]
    assert "8 images are copies of others" in caplog.text
    for file in images.glob("ant/*"):
        file.write_bytes(b"the same")
    with pytest.raises(InputError, match="ant: needs two different images or more"):
        datasets._check_one_folder(images, torch.nn.Identity(), {}, "ask")
