"""Folders of images and masks."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from PIL import Image

from refocus.data.folders import class_folders, outputs_of, scan
from refocus.errors import InputError
from refocus.vit.classes import name_outputs, set_order
from tests.makers import Build, gradient


def test_scan_labels_by_the_models_names_whatever_the_folders_order(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    (images / "bee").rename(images / "tmp")  # leaves ant, cat, dog: labels must stay 0, 2, 3
    (images / "tmp").rename(images.parent / "bee")
    samples = scan(images, tiny(), masks=masks)
    assert sorted({(s.image.parent.name, s.label) for s in samples}) == [
        ("ant", 0),
        ("cat", 2),
        ("dog", 3),
    ]
    assert all(s.mask == masks / s.image.parent.name / s.image.name for s in samples)


def test_a_known_class_without_a_folder_is_a_notice(
    tiny: Build, image_folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    images, masks = image_folders
    (images / "bee").rename(images.parent / "bee")
    with caplog.at_level(logging.INFO, "refocus"):
        scan(images, tiny(), masks=masks)
    assert "no folder for 1 of the model's 4 classes (bee)" in caplog.text
    more = tiny(num_classes=6)
    name_outputs(more, ["ant", "b", "c", "d", "e", "f"], "here")
    for name in ("cat", "dog"):
        (images / name).rename(images.parent / f"no {name}")
    with caplog.at_level(logging.INFO, "refocus"):
        scan(images, more)
    assert "no folder for 5 of the model's 6 classes (b, c, d, ...)" in caplog.text
    assert "masks of 1 classes without images are not read (bee)" in caplog.text


def test_scan_refuses(tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = image_folders
    model = tiny()
    with pytest.raises(InputError, match=r"images .*absent: no such folder"):
        scan(tmp_path / "absent", model)
    with pytest.raises(InputError, match=r"masks .*absent: no such folder"):
        scan(images, model, masks=tmp_path / "absent")
    gradient().save(images / "cat" / "1.jpg")
    with pytest.raises(InputError, match=r"1\.jpg and 1\.png: would share the mask 1\.png"):
        scan(images, model, masks=masks)
    (images / "cat" / "1.jpg").unlink()
    Image.new("L", (40, 36)).save(masks / "cat" / "stray.png")
    with pytest.raises(InputError, match=r"stray\.png: mask without an image"):
        scan(images, model, masks=masks)
    (images / "zebra").mkdir()
    with pytest.raises(InputError, match="zebra: class folder without images"):
        scan(images, model)
    gradient().save(images / "zebra" / "1.png")
    with pytest.raises(
        InputError, match="the model knows no class 'zebra'; it knows ant, bee, cat, dog"
    ):
        scan(images, model)
    with pytest.raises(InputError, match="holds no class folders"):
        scan(images / "cat", model)


def test_a_model_without_class_names_takes_the_folders_in_order(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    model = tiny(num_classes=5)
    with pytest.raises(InputError, match="5 outputs, but there are 4 class folders"):
        scan(image_folders[0], model)
    model.reset_classifier(4)
    assert {s.label for s in scan(image_folders[0], model)} == {0, 1, 2, 3}


def test_names_that_come_from_the_first_folder_are_said_to(
    tiny: Build, image_folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    images, _ = image_folders
    other = images.parent / "other"
    shutil.copytree(images, other)
    for folder, name in zip(sorted(other.iterdir()), "wxyz", strict=True):
        folder.rename(other / name)
    model = tiny()
    model.pretrained_cfg["label_names"] = None
    scan(other, model)
    assert "in sorted order, which it keeps as its names from now on" in caplog.text
    message = r"it knows w, x, y, z; it took these names from .*other; load it anew"
    with pytest.raises(InputError, match=message):
        scan(images, model)


def test_imagenet_layout_with_wordnet_ids(shared: Path) -> None:
    from refocus.vit.loading import load

    samples = scan(
        shared / "data" / "imagenet_sample", load("vit_tiny_patch16_224", pretrained=False)
    )
    assert len(samples) == 100
    assert next(s.label for s in samples if s.image.parent.name == "n01440764") == 0


@pytest.mark.parametrize("first", ["aa", "zz"])
def test_two_class_folders_that_are_one_by_a_link_are_refused(
    image_folders: tuple[Path, Path], first: str
) -> None:
    images, _ = image_folders
    (images / first).symlink_to(images / "cat")
    with pytest.raises(InputError, match=r"is the same folder as .*, by a link"):
        class_folders(images, "images")
    (images / "cat").rename(images.parent / "elsewhere")  # a link alone is a class like any other
    (images / first).unlink()
    (images / "cat").symlink_to(images.parent / "elsewhere")
    assert "cat" in class_folders(images, "images")


@pytest.mark.parametrize(
    ("folders", "differ"),
    [
        (["e\u0301cole", "zoo"], True),
        (["école", "zoo"], True),  # as it may have been stored where the model was trained
        (["éa", "e\u0301b", "zoo"], True),
        (["ecole", "zoo"], False),
        (["aé", "zoo"], False),
        (["école", "ére"], False),
    ],
)
@pytest.mark.parametrize("order", [None, "string", "natural"])
def test_the_order_of_folders_must_not_depend_on_how_accents_are_stored(
    tiny: Build, folders: list[str], differ: bool, order: str | None
) -> None:
    model = tiny(num_classes=len(folders))
    if order:
        set_order(model, order)
    if differ:
        with pytest.raises(InputError, match=r"how letters with accents are stored.*give .*names"):
            outputs_of(model, folders, "here")
    else:
        assert list(outputs_of(model, folders, "here").values()) == [*range(len(folders))]


def test_a_folder_that_is_stored_in_two_characters_keeps_its_output(
    tiny: Build, tmp_path: Path
) -> None:
    for name in ("e\u0301cole", "zoo"):
        (tmp_path / name).mkdir()
        gradient().save(tmp_path / name / "1.png")
    with pytest.raises(InputError, match="output 0 is école or zoo"):
        scan(tmp_path, tiny(num_classes=2))
    model = tiny(num_classes=2)
    name_outputs(model, ["zoo", "école"], "here")
    assert {s.image.parent.name: s.label for s in scan(tmp_path, model)} == {
        "e\u0301cole": 1, "zoo": 0}  # fmt: skip
