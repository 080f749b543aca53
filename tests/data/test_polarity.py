"""Folders that are no masks of objects stop with a question that an option answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from refocus.data.folders import folder_samples, scan
from refocus.data.images import ORIENTATION, mask_of, read_image
from refocus.errors import InputError
from refocus.fingerprints import of_file
from tests.makers import Build


def each(masks: Path, change: Callable[[np.ndarray, Path], np.ndarray]) -> None:
    for file in sorted(masks.glob("*/*.png")):
        with Image.open(file) as mask:
            values = np.asarray(mask)
        Image.fromarray(change(values, file)).save(file)


def grey(values: np.ndarray, file: Path) -> np.ndarray:
    image = file.parents[2] / "images" / file.parent.name / file.name
    with Image.open(image) as opened:
        return np.asarray(opened.convert("L"))


DOUBTFUL: dict[str, tuple[Callable[[np.ndarray, Path], np.ndarray], str]] = {
    "inverted": (
        lambda v, _f: 255 - v,
        "of 16 masks examined, 16 cover most of the image's border",
    ),
    "inverted, 0 and 1": (lambda v, _f: (v == 0).astype(np.uint8), "border"),
    "most inverted": (lambda v, f: v if f.stem == "0" else 255 - v, "border"),
    "grey photographs": (grey, "16 look like their images"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_folder_of_doubtful_masks_stops_with_a_question(
    tiny: Build, image_folders: tuple[Path, Path], name: str
) -> None:
    images, masks = image_folders
    change, message = DOUBTFUL[name]
    each(masks, change)
    for samples in (
        lambda **how: scan(images, tiny(), masks=masks, **how),
        lambda **how: folder_samples(images, masks, **how),
    ):
        with pytest.raises(InputError, match=rf"{message}.*mask_polarity=keep"):
            samples()
        kept = samples(mask_polarity="keep")[1]
        swapped = samples(mask_polarity="invert")[1]
        assert (mask_of(swapped) == 1 - mask_of(kept)).all()


def test_a_few_masks_at_the_border_are_no_question(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    each(masks, lambda v, f: 255 - v if f.stem in "01" else v)
    assert not any(s.inverted for s in scan(images, tiny(), masks=masks))


@pytest.mark.parametrize("change", ["masks", "an image", "after `refocus masks`"])
def test_files_that_changed_since_they_were_examined_are_examined_again(
    image_folders: tuple[Path, Path], change: str
) -> None:
    images, masks = image_folders
    first = images / "ant" / "0.png"
    if change.startswith("after"):
        mask = masks / "ant" / "0.png"
        row = {"mask": "ant/0.png", "image": str(first), "of": of_file(first)}
        (masks / "masks.json").write_text(json.dumps({"masks": [row | {"digest": of_file(mask)}]}))
    folder_samples(images, masks)
    if change == "masks":
        each(masks, lambda v, _f: 255 - v)
    else:
        exif = Image.Exif()
        exif[ORIENTATION] = 3
        Image.new("RGB", (40, 36)).save(first, exif=exif)
    with pytest.raises(InputError, match=r"16 cover most|carries an EXIF|made for other images"):
        folder_samples(images, masks)


def test_masks_that_refocus_wrote_are_judged_by_their_scores(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    each(masks, lambda v, _f: 255 - v)
    (masks / "masks.json").write_text("{}")
    assert len(scan(images, tiny(), masks=masks)) == 24


@pytest.mark.parametrize("place", ["images", "images/../images", "link"])
def test_the_folder_of_the_images_is_no_folder_of_masks(
    tiny: Build, image_folders: tuple[Path, Path], place: str
) -> None:
    images, _ = image_folders
    (images.parent / "link").symlink_to(images)
    with pytest.raises(InputError, match="is the folder of the images"):
        scan(images, tiny(), masks=images.parent / place)


def test_another_answer_is_refused(tiny: Build, image_folders: tuple[Path, Path]) -> None:
    images, masks = image_folders
    with pytest.raises(InputError, match="mask_polarity yes: choose one of ask, keep, invert"):
        scan(images, tiny(), masks=masks, mask_polarity="yes")


def photographs(root: Path, tag: int, size: tuple[int, int], own: int | None) -> tuple[Path, Path]:
    """One photograph with an EXIF orientation, and an upright mask with one of its own or none."""
    images, masks = root / "photos", root / "drawn"
    exif = Image.Exif()
    exif[ORIENTATION] = tag
    for folder in (images / "ant", masks / "ant"):
        folder.mkdir(parents=True)
    Image.new("RGB", size, "green").save(images / "ant" / "0.jpg", exif=exif)
    with Image.open(images / "ant" / "0.jpg") as photo:
        mask = Image.new("L", ImageOps.exif_transpose(photo).size)
    mask.paste(255, (4, 4, 12, 9))
    stated = Image.Exif()
    if own is not None:
        stated[ORIENTATION] = own
    mask.save(masks / "ant" / "0.png", exif=stated)
    return images, masks


@pytest.mark.parametrize(
    ("tag", "size", "own", "clear"),
    [
        (1, (40, 30), None, True),
        (2, (40, 30), None, False),
        (3, (40, 30), None, False),
        (4, (40, 30), None, False),
        (6, (40, 30), None, True),  # turned by 90 degrees: its size tells
        (8, (40, 40), None, False),  # of a square it does not
        (3, (40, 30), 1, True),  # the mask says of itself that it stands upright
        (8, (40, 40), 1, True),
    ],
)
def test_where_exif_turns_an_image_its_mask_must_tell_what_it_was_drawn_on(
    tmp_path: Path, tag: int, size: tuple[int, int], own: int | None, clear: bool
) -> None:
    images, masks = photographs(tmp_path, tag, size, own)
    for answer in ("ask", "keep", "invert"):  # which answer another question
        if clear:
            assert folder_samples(images, masks, mask_polarity=answer)[0].mask
            continue
        with pytest.raises(InputError, match=r"0\.jpg carries an EXIF orientation; for 1 of 1"):
            folder_samples(images, masks, mask_polarity=answer)
    (masks / "masks.json").write_text("{}")  # of `refocus masks`, which has asked
    assert folder_samples(images, masks)[0].mask


def test_a_mask_of_the_stored_pixels_says_how_it_can_be_taken_over(tmp_path: Path) -> None:
    images, masks = photographs(tmp_path, 6, (40, 30), None)
    Image.open(masks / "ant" / "0.png").transpose(Image.Transpose.ROTATE_90).save(
        masks / "ant" / "0.png"
    )
    (sample,) = folder_samples(images, masks)
    with pytest.raises(InputError, match="turns masks of images that EXIF turns"):
        mask_of(sample, read_image(sample.image))


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("nothing", False),
        ("elsewhere", False),  # the same pictures in another folder
        ("others", True),  # other pictures of the same names, as those of another split are
        ("replaced", True),
        ("drawn anew", False),  # somebody drew the mask of the new picture
    ],
)
def test_masks_that_were_made_for_other_images_are_refused(
    change: str, refused: bool, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    files = sorted(images.glob("*/*.png"))
    rows = [
        {"mask": f"{f.parent.name}/{f.name}", "image": str(f), "of": of_file(f),
         "digest": of_file(masks / f.parent.name / f.name)}
        for f in files
    ]  # fmt: skip
    (masks / "masks.json").write_text(json.dumps({"masks": rows}))
    for file in files:
        os.utime(file, (1e9, 1e9))
    if change in ("elsewhere", "others"):
        images = images.rename(images.parent / change)
    if change not in ("nothing", "elsewhere"):
        Image.new("RGB", (40, 36)).save(images / "ant" / "0.png")
    if change == "drawn anew":
        Image.new("L", (40, 36), 9).save(masks / "ant" / "0.png")
    if refused:
        with pytest.raises(InputError, match=r"masks .*: 1 of 24 masks were made for other images"):
            folder_samples(images, masks)
    else:
        assert len(folder_samples(images, masks)) == 24
