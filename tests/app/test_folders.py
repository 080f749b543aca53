"""The folders that the app reads and writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus.app.folders import Folders
from refocus.data.folders import folder_samples
from refocus.errors import InputError


def test_masks_are_saved_where_tune_reads_them_and_nothing_is_lost(
    image_folders: tuple[Path, Path],
) -> None:
    images, masks = image_folders
    folders = Folders(images, masks)
    before = (masks / "cat" / "0.png").read_bytes()
    drawn = np.zeros((36, 40), bool)
    drawn[3:9, 4:12] = True
    assert folders.save("cat/0.png", drawn) == masks.resolve() / "cat" / "0.png"
    assert np.array_equal(folders.mask("cat/0.png")[0].numpy() > 0.5, drawn)
    assert (masks / ".replaced" / "cat" / "0.0.png").read_bytes() == before
    folders.save("cat/0.png", ~drawn)
    assert np.array_equal(
        np.asarray(Image.open(masks / ".replaced" / "cat" / "0.1.png")) > 0, drawn
    )
    for wrong in (np.zeros((36, 40), bool), np.ones((36, 40), bool), np.ones((3, 3), bool)):
        with pytest.raises(InputError):
            folders.save("cat/0.png", wrong)


def test_a_mask_of_another_kind_than_png_is_read_and_replaced(
    image_folders: tuple[Path, Path],
) -> None:
    images, masks = image_folders
    old = masks / "cat" / "0.bmp"
    Image.open(masks / "cat" / "0.png").save(old)
    before = old.read_bytes()
    (masks / "cat" / "0.png").unlink()
    folders = Folders(images, masks)
    assert folders.mask("cat/0.png") is not None
    assert folders.doubtful()[0] != "cat/0.png"
    drawn = np.zeros((36, 40), bool)
    drawn[3:9, 4:12] = True
    folders.save("cat/0.png", drawn)
    found = {
        s.image.name: s.mask for s in folder_samples(images, masks) if s.mask.parent.name == "cat"
    }
    assert found["0.png"].name == "0.png"
    assert not old.exists()
    assert (masks / ".replaced" / "cat" / "0.0.bmp").read_bytes() == before


def test_names_that_look_like_patterns(tmp_path: Path, image_folders: tuple[Path, Path]) -> None:
    images, masks = image_folders
    for kind in (images, masks):
        shutil.copy(kind / "cat" / "0.png", kind / "cat" / "img[1].png")
    folders = Folders(images, masks)
    before = (masks / "cat" / "img[1].png").read_bytes()
    for row in (3, 6):
        drawn = np.zeros((36, 40), bool)
        drawn[row, 4:12] = True
        folders.save("cat/img[1].png", drawn)
    kept = sorted((masks / ".replaced" / "cat").iterdir())
    assert len(kept) == 2
    assert kept[0].read_bytes() == before


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "cat/../../secret.png", "cat/9.png", ""]
)
def test_what_lies_outside_of_the_folders_is_not_served(
    name: str, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    Image.new("RGB", (4, 4)).save(images.parent / "secret.png")
    folders = Folders(images, masks)
    for ask in (folders.image, folders.mask, lambda n: folders.save(n, np.eye(36, 40, dtype=bool))):
        with pytest.raises(InputError, match="is not in the image folder"):
            ask(name)


def test_the_most_doubtful_masks_come_first(image_folders: tuple[Path, Path]) -> None:
    images, masks = image_folders
    rows = [{"mask": "bee/2.png", "score": 0.1}, {"mask": "ant/0.png", "score": 0.4}]
    (masks / "masks.json").write_text(json.dumps({"masks": rows}))
    (masks / "dog" / "5.png").unlink()
    assert Folders(images, masks).doubtful()[:4] == [
        "dog/5.png",
        "bee/2.png",
        "ant/0.png",
        "ant/1.png",
    ]
