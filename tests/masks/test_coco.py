"""COCO's boxes are x, y, width, height; some tools write two corners, which a whole file tells."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refocus import InputError, MaskSettings
from refocus.masks import formats

pytest.importorskip("pycocotools")

SIZE = (100, 80)
POLYGON = [[5, 5, 60, 5, 60, 60, 5, 60]]
Box = tuple[float, float, float, float]


def instances(folder: Path, *objects: dict[str, Any], sized: bool = True) -> Path:
    """One image for each object."""
    size = {"width": SIZE[0], "height": SIZE[1]} if sized else {}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", **size} for i in range(len(objects))],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, **one} for i, one in enumerate(objects)
        ],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    return file


def seen(file: Path, number: int = 0, boxes: str = "ask") -> Box:
    """The corners of a mask, the end outside."""
    images = [file.parent / "cat" / f"{i}.png" for i in range(3)]
    mask = formats.reader("coco", file, images=images, boxes=boxes)(images[number], SIZE)
    assert mask is not None
    rows, columns = np.nonzero(mask)
    left, top = int(columns.min()), int(rows.min())
    return left, top, int(columns.max()) + 1, int(rows.max()) + 1


CORNERS = {  # files whose boxes are x, y of two corners
    "two leave the image": [(40, 30, 90, 70), (10, 10, 50, 40), (50, 8, 99, 60)],
    "one leaves it": [(10, 10, 50, 40), (60, 8, 99, 60)],
    "a single box": [(40, 30, 90, 70)],
    "one of many is empty": [(40, 30, 90, 70)] * 30 + [(5, 5, 5, 9)],
}
SIZES = {  # files whose boxes are x, y, width, height
    "one ends before it begins as corners": [(40, 30, 20, 20), (10, 10, 50, 40)],
    "one ends beyond the edge, as tools round": [(40, 30, 61, 50), (10, 10, 91, 71)],
    "a crop cuts one off": [(40, 30, 80, 70), (60, 50, 10, 10)],
    "a crop cuts one of many off": [(40, 30, 80, 70), *[(40, 30, 45, 35)] * 30, (60, 50, 10, 10)],
}


@pytest.mark.parametrize("found", CORNERS.values(), ids=CORNERS)
def test_boxes_that_fit_as_corners_alone_are_asked_for(tmp_path: Path, found: list[Box]) -> None:
    file = instances(tmp_path, *({"bbox": box} for box in found))
    with pytest.raises(
        InputError, match=rf" of {len(found)} boxes.* extend beyond .*boxes=corners"
    ):
        formats.reader("coco", file)
    assert seen(file, boxes="corners") == found[0]
    x, y, w, h = found[0]
    assert seen(file, boxes="xywh") == (x, y, min(x + w, SIZE[0]), min(y + h, SIZE[1]))


CENTERED = {  # files whose boxes are x, y of the centre, width, height
    "some leave the image": ((80, 60, 40, 36), [(50, 40, 20, 20), (20, 20, 30, 30)]),
    "one of many is empty": ((80, 60, 40, 36), [(60, 40, 60, 60)] * 30 + [(5, 5, 0, 9)]),
}


@pytest.mark.parametrize("name", CENTERED)
def test_boxes_that_begin_with_their_centre_are_asked_for(tmp_path: Path, name: str) -> None:
    first, more = CENTERED[name]
    file = instances(tmp_path, *({"bbox": box} for box in (first, *more)))
    with pytest.raises(InputError, match=r"centre x, centre y, .* as YOLO has them.*boxes=centers"):
        formats.reader("coco", file)
    assert seen(file, boxes="centers") == (60, 42, 100, 78)


def test_boxes_that_could_be_both_are_asked_for_by_both_names(tmp_path: Path) -> None:
    file = instances(tmp_path, {"bbox": (60, 50, 70, 58)})
    with pytest.raises(InputError, match=r"could be: 1 two corners.* or 1 centre x.*=corners or"):
        formats.reader("coco", file)


@pytest.mark.parametrize(
    "one",
    [
        {"bbox": (0.5, 0.5, 0.9, 0.8)},  # a centre in shares: ends beyond 1
        {"bbox": (0.1, 0.2, 0.5, 0.5)},
        {"bbox": (0.1, 0.2, 0.5, 0.5), "segmentation": [[0.1, 0.1, 1.004, 0.1, 0.9, 0.9]]},
    ],
)
def test_shares_of_the_image_are_no_pixels(tmp_path: Path, one: dict[str, Any]) -> None:
    file = instances(tmp_path, one)
    for boxes in ("ask", "xywh"):
        with pytest.raises(InputError, match="in fractions from 0 to 1; must be in pixels"):
            seen(file, boxes=boxes)


@pytest.mark.parametrize(
    ("area", "asked"), [(40 * 30, True), (50.0 * 40, False), (77, False), (None, False)]
)
def test_the_area_that_a_file_states_tells(
    tmp_path: Path, area: float | None, asked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the file says no size of its images."""
    caplog.set_level(logging.INFO, "refocus")
    file = instances(tmp_path, {"bbox": (10, 10, 50, 40), "area": area}, sized=False)
    if asked:
        with pytest.raises(InputError, match=r"1 of 1 boxes, such as .* another area"):
            formats.reader("coco", file)
        return
    assert seen(file) == (10, 10, 60, 50)
    assert ("could be corners" in caplog.text) == (area != 50.0 * 40)
    assert "‹" not in caplog.text


@pytest.mark.parametrize("found", SIZES.values(), ids=SIZES)
def test_boxes_as_coco_has_them_are_read(
    tmp_path: Path, found: list[Box], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "refocus")
    file = instances(tmp_path, *({"bbox": box} for box in found))
    x, y, w, h = found[0]
    assert seen(file) == (x, y, min(x + w, SIZE[0]), min(y + h, SIZE[1]))
    assert ("could be corners" in caplog.text) == (found[0] == (40, 30, 61, 50))


def test_the_box_of_an_object_that_has_a_shape_is_not_looked_at(tmp_path: Path) -> None:
    file = instances(tmp_path, {"bbox": (40, 30, 90, 70), "segmentation": POLYGON})
    assert seen(file)[:2] == (5, 5)


PERCENTS = [(10, 20, 40, 60), (5, 5, 80, 95), (30, 40, 45, 50), (0, 0, 100, 100), (60, 2, 30, 70)]
KINDS = ("boxes", "voc-boxes", "coco", "coco corners", "coco polygons")


def outlined(
    folder: Path, kind: str, corners: list[Box], size: tuple[int, int], *, sized: bool = True
) -> tuple[str, Path, list[Path]]:
    """A format, its source and images, one for each x0, y0, x1, y1."""
    images = [folder / "cat" / f"{i}.png" for i in range(len(corners))]
    (folder / "cat").mkdir()
    for image in images:
        Image.new("RGB", size).save(image)
    if kind == "boxes":
        lines = [f"{i}.png,{x},{y},{x1},{y1}" for i, (x, y, x1, y1) in enumerate(corners)]
        (folder / "b.csv").write_text("\n".join(["image,xmin,ymin,xmax,ymax", *lines]))
        return kind, folder / "b.csv", images
    if kind == "voc-boxes":
        (folder / "v").mkdir()
        tags = ("xmin", "ymin", "xmax", "ymax")
        said = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if sized else ""
        for i, box in enumerate(corners):
            inside = "".join(f"<{t}>{v}</{t}>" for t, v in zip(tags, box, strict=True))
            text = f"{said}<object><name>cat</name><bndbox>{inside}</bndbox></object>"
            (folder / "v" / f"{i}.xml").write_text(f"<annotation>{text}</annotation>")
        return kind, folder / "v", images
    objects: list[dict[str, Any]] = []
    for x, y, x1, y1 in corners:
        shape = {"segmentation": [[x, y, x1, y, x1, y1, x, y1]]} if "polygons" in kind else {}
        objects.append({"bbox": (x, y, x1, y1) if "corn" in kind else (x, y, x1 - x, y1 - y)})
        objects[-1] |= shape
    file = instances(folder, *objects, sized=False)
    content = json.loads(file.read_text())
    for image in content["images"] if sized else ():
        image |= {"width": size[0], "height": size[1]}
    file.write_text(json.dumps(content))
    return "coco", file, images


def from_sizes(boxes: list[Box], scale: float = 1) -> list[Box]:
    found = ((x, y, min(x + w, 100), min(y + h, 100)) for x, y, w, h in boxes)
    return [(x * scale, y * scale, x1 * scale, y1 * scale) for x, y, x1, y1 in found]


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_percents_of_the_image_are_asked_for(tmp_path: Path, kind: str, sized: bool) -> None:
    name, file, images = outlined(tmp_path, kind, from_sizes(PERCENTS), (640, 480), sized=sized)
    with pytest.raises(InputError, match=r"its 5 objects is above 101, in images up to 640x480"):
        formats.reader(name, file, images=images)
    for boxes in ("xywh", "corners") if name == "coco" else ("corners",):
        formats.reader(name, file, images=images, boxes=boxes)


PIXELS = {  # x0, y0, x1, y1 and the size of their images
    "small images": (from_sizes(PERCENTS), (200, 480)),
    "few": (from_sizes(PERCENTS)[:4], (640, 480)),
    "one ends further on": ([*from_sizes(PERCENTS), (500, 100, 600, 140)], (640, 480)),
    "all in the middle": (from_sizes(PERCENTS, 2.4), (256, 256)),
}


@pytest.mark.parametrize("kind", KINDS[:3] + KINDS[4:])
@pytest.mark.parametrize("name", PIXELS)
def test_pixels_are_not_taken_for_percents(tmp_path: Path, kind: str, name: str) -> None:
    corners, size = PIXELS[name]
    source, file, images = outlined(tmp_path, kind, corners, size)
    mask = formats.reader(source, file, images=images)(images[0], size)
    assert mask is not None
    assert mask.any()


def test_what_ends_beyond_the_corner_of_its_image_is_in_pixels(tmp_path: Path) -> None:
    """No number is above 100, but x + width is."""
    boxes: list[Box] = [(90, 80, 100, 90), *[(40, 30, 60, 50)] * 9]
    images = outlined(tmp_path, "coco", boxes, (224, 224))[2]
    file = instances(tmp_path, *({"bbox": box} for box in boxes), sized=False)
    formats.reader("coco", file, images=images)


def test_only_boxes_are_said_to_be_corners(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("image,xmin,ymin,xmax,ymax\na.png,1,1,5,5\n")
    with pytest.raises(InputError, match="boxes xywh: only with source coco; the other"):
        formats.reader("boxes", tmp_path / "b.csv", boxes="xywh")
    with pytest.raises(InputError, match="boxes corners: only with source coco, boxes and voc-box"):
        formats.reader("png", tmp_path, boxes="corners")
    with pytest.raises(InputError, match="boxes corners: only with source"):
        MaskSettings(boxes="corners")
