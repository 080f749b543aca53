"""Masks taken over: EXIF orientations, questions before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from refocus.errors import InputError
from refocus.masks.folder import find_masks
from refocus.masks.settings import MaskSettings

SIZE = (40, 30)  # width, height as stored
OBJECT = np.zeros(SIZE[::-1], bool)
OBJECT[4:12, 6:26] = True


def photo(folder: Path, tag: int) -> np.ndarray:
    """A photograph with an EXIF orientation; returns where its object is when it stands upright."""
    (folder / "i" / "a").mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = tag
    pixels = np.random.default_rng(0).integers(0, 90, (*OBJECT.shape, 3), dtype=np.uint8)
    pixels[OBJECT] = (200, 60, 40)
    Image.fromarray(pixels).save(folder / "i" / "a" / "0.jpg", exif=exif, quality=95)
    stored = Image.fromarray(OBJECT.astype(np.uint8) * 255)
    stored.getexif()[0x0112] = tag
    return np.asarray(ImageOps.exif_transpose(stored)) > 0


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def coco(folder: Path, mask: np.ndarray) -> tuple[str, Path]:
    x0, y0, x1, y1 = box(mask)
    content = {
        "images": [
            {"id": 1, "file_name": "a/0.jpg", "width": mask.shape[1], "height": mask.shape[0]}
        ],
        "annotations": [{"id": 1, "image_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}],
    }
    (folder / "c.json").write_text(json.dumps(content))
    return "coco", folder / "c.json"


def boxes(folder: Path, mask: np.ndarray) -> tuple[str, Path]:
    (folder / "b.csv").write_text(
        "image,xmin,ymin,xmax,ymax\na/0.jpg," + ",".join(map(str, box(mask)))
    )
    return "boxes", folder / "b.csv"


def voc_boxes(folder: Path, mask: np.ndarray) -> tuple[str, Path]:
    x0, y0, x1, y1 = box(mask)
    (folder / "v").mkdir()
    (folder / "v" / "0.xml").write_text(
        f"<annotation><size><width>{mask.shape[1]}</width><height>{mask.shape[0]}</height></size>"
        f"<object><name>a</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object></annotation>"
    )
    return "voc-boxes", folder / "v"


def png(folder: Path, mask: np.ndarray) -> tuple[str, Path]:
    (folder / "m" / "a").mkdir(parents=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "m" / "a" / "0.png")
    return "png", folder / "m"


SOURCES = [coco, boxes, voc_boxes, png]


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("frame", ["upright", "raw"])
@pytest.mark.parametrize("source", SOURCES)
def test_masks_lie_on_the_object_however_a_photograph_is_stored(
    tmp_path: Path,
    tag: int,
    frame: str,
    source: Callable[[Path, np.ndarray], tuple[str, Path]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    if source is coco:
        pytest.importorskip("pycocotools")
    upright = photo(tmp_path, tag)
    given = source(tmp_path, upright if frame == "upright" else OBJECT)
    tells_itself = tag == 1 or (tag >= 5 and source is not boxes)
    settings = MaskSettings(source=given, device="cpu")
    if not tells_itself:
        with pytest.raises(InputError, match=r"0\.jpg: carries an EXIF orientation; for 1 of 1"):
            find_masks(tmp_path / "i", tmp_path / "out", settings)
        assert not (tmp_path / "out").exists()
        settings = MaskSettings(source=given, device="cpu", orientation=frame)
    with caplog.at_level("INFO", "refocus"):
        find_masks(tmp_path / "i", tmp_path / "out", settings)
    with Image.open(tmp_path / "out" / "a" / "0.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask) > 0, upright)
    assert ("1 of 1 images carry an EXIF orientation" in caplog.text) == (tag != 1)


@pytest.mark.parametrize("tag", [3, 5, 6, 7, 8])
@pytest.mark.parametrize("frame", ["upright", "raw"])
def test_a_turned_tiff_has_its_mask_upright(tmp_path: Path, tag: int, frame: str) -> None:
    """Pillow says the size of a turned TIFF as it stands upright, of a turned JPEG as stored."""
    upright = photo(tmp_path, tag)
    jpeg = tmp_path / "i" / "a" / "0.jpg"
    with Image.open(jpeg) as opened:
        Image.fromarray(np.asarray(opened)).save(jpeg.with_suffix(".tif"), tiffinfo={274: tag})
    jpeg.unlink()
    given = png(tmp_path, upright if frame == "upright" else OBJECT)
    find_masks(
        tmp_path / "i",
        tmp_path / "out",
        MaskSettings(source=given, device="cpu", orientation=frame),  # type: ignore[arg-type]
    )
    with Image.open(tmp_path / "out" / "a" / "0.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask) > 0, upright)


@pytest.mark.parametrize("tag", [2, 3, 4, 6])
def test_a_mask_that_states_its_own_orientation_is_not_asked_about(
    tmp_path: Path, tag: int
) -> None:
    upright = photo(tmp_path, tag)
    stored = Image.Exif()
    stored[0x0112] = tag
    kind, folder = png(tmp_path, OBJECT)
    with Image.open(folder / "a" / "0.png") as mask:
        mask.save(folder / "a" / "0.png", exif=stored)
    for number, frame in enumerate(("ask", "raw", "upright")):
        settings = MaskSettings(source=(kind, folder), device="cpu", orientation=frame)
        find_masks(tmp_path / "i", tmp_path / f"out{number}", settings)
        with Image.open(tmp_path / f"out{number}" / "a" / "0.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask) > 0, upright)


@pytest.mark.parametrize("kind", ["png", "voc"])
def test_inverted_masks_stop_with_a_question_before_anything_is_written(
    image_folders: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    images, masks = image_folders
    for file in masks.glob("*/*.png"):
        with Image.open(file) as mask:
            values = 1 - np.asarray(mask) // 255
        Image.fromarray(values).save(file)
    settings = {"source": (kind, masks), "device": "cpu"}
    with pytest.raises(InputError, match=r"16 cover most of the image's border.*invert"):
        find_masks(images, tmp_path / "out", MaskSettings(**settings))
    assert not (tmp_path / "out").exists()
    for answer, share in (("keep", 0.8), ("invert", 0.2)):
        find_masks(images, tmp_path / answer, MaskSettings(**settings, mask_polarity=answer))
        with Image.open(tmp_path / answer / "ant" / "0.png") as mask:
            assert (np.asarray(mask).mean() / 255 > 0.5) == (share > 0.5)


@pytest.mark.parametrize("kind", ["png", "voc"])
def test_photographs_are_no_masks(
    image_folders: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    images, _ = image_folders
    with pytest.raises(InputError, match=r"holds the images|photograph|in colour"):
        find_masks(images, tmp_path / "out", MaskSettings(source=(kind, images), device="cpu"))


def test_grey_photographs_are_no_masks(image_folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, _ = image_folders
    for file in images.glob("*/*.png"):
        copy = tmp_path / "grey" / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.convert("L").save(copy)
    settings = MaskSettings(source=("png", tmp_path / "grey"), device="cpu")
    with pytest.raises(InputError, match="look like their images"):
        find_masks(images, tmp_path / "out", settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"orientation": "raw"}, "orientation raw: only with source"),
        ({"mask_polarity": "invert"}, "mask_polarity invert: only with source"),
    ],
)
def test_answers_without_a_source_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MaskSettings(**settings)


def test_another_answer_is_refused(tmp_path: Path) -> None:
    for name in ("orientation", "mask_polarity"):
        with pytest.raises(InputError, match=f"{name} left: must be ask, "):
            MaskSettings(source=("png", tmp_path), **{name: "left"})


@pytest.mark.parametrize("values", [[1, 2, 3], [0, 0, 0], [255, 255, 255]])
def test_a_mask_of_everything_or_nothing_is_skipped_with_its_reason(
    tmp_path: Path, values: list[int]
) -> None:
    photo(tmp_path, 1)
    kind, folder = png(tmp_path, OBJECT)
    stripes = np.repeat(np.array(values, np.uint8), 10)[:, None].repeat(SIZE[0], 1)
    Image.fromarray(stripes).save(folder / "a" / "0.png")
    for answer in ("keep", "invert"):
        settings = MaskSettings(source=(kind, folder), device="cpu", mask_polarity=answer)
        with pytest.raises(InputError, match=r"no mask could be made.*marks (everything|nothing)"):
            find_masks(tmp_path / "i", tmp_path / "out", settings)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ids", [(0, 700), (0, 1), (0, 300, 65535)])
def test_ids_of_16_bits_are_taken_over(tmp_path: Path, ids: tuple[int, ...]) -> None:
    upright = photo(tmp_path, 1)
    kind, folder = png(tmp_path, OBJECT)
    values = np.where(OBJECT, ids[1], 0)
    if len(ids) > 2:
        values[-2:] = ids[2]
    Image.fromarray(values.astype(np.uint16)).save(folder / "a" / "0.png")
    ignore = ids[2] if len(ids) > 2 else None
    settings = MaskSettings(source=(kind, folder), device="cpu", ignore=ignore)
    find_masks(tmp_path / "i", tmp_path / "out", settings)
    with Image.open(tmp_path / "out" / "a" / "0.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask) > 0, upright)


@pytest.mark.parametrize("ending", ["jpg", "webp", "avif"])
@pytest.mark.parametrize("quality", [30, 60, 90])
def test_noise_of_a_lossy_format_is_taken_over_as_background(
    tmp_path: Path, ending: str, quality: int
) -> None:
    upright = photo(tmp_path, 1)
    kind, folder = png(tmp_path, OBJECT)
    with Image.open(folder / "a" / "0.png") as mask:
        mask.convert("RGB").save(folder / "a" / f"0.{ending}", quality=quality)
    (folder / "a" / "0.png").unlink()
    find_masks(tmp_path / "i", tmp_path / "out", MaskSettings(source=(kind, folder), device="cpu"))
    with Image.open(tmp_path / "out" / "a" / "0.png") as mask:
        found = np.asarray(mask) > 0
    assert (found & upright).sum() / (found | upright).sum() > 0.9
