"""The data of a study: a user's own folder is split."""

from __future__ import annotations

from pathlib import Path

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
