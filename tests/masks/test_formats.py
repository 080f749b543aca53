"""Masks people already have: each format on a miniature in its real layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refocus import InputError
from refocus.masks import formats

SIZE = (12, 10)  # width, height
BOX = np.zeros(SIZE[::-1], bool)
BOX[2:6, 3:9] = True


def save(path: Path, values: np.ndarray, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (_palette(values) if palette else Image.fromarray(values.astype(np.uint8))).save(path)
    return path


def _palette(values: np.ndarray) -> Image.Image:
    picture = Image.fromarray(values.astype(np.uint8)).convert("P")
    picture.putdata(values.ravel().tolist())
    picture.putpalette([v for i in range(256) for v in (i, 0, 255 - i)])
    return picture


def image(name: str = "cat/a.jpg") -> Path:
    return Path("/anywhere") / name


@pytest.mark.parametrize("place", ["cat/a.png", "a.png"])
@pytest.mark.parametrize("value", [1, 7, 255])
def test_png_in_class_folders_or_flat(tmp_path: Path, place: str, value: int) -> None:
    save(tmp_path / place, BOX * value)
    read = formats.reader("png", tmp_path)
    np.testing.assert_array_equal(read(image(), SIZE), BOX)
    assert read(image("cat/other.jpg"), SIZE) is None


def test_a_folder_without_a_picture_is_said_to_hold_no_image(tmp_path: Path) -> None:
    for name, said in (("png", "holds no image files"), ("voc-boxes", "holds no .xml files")):
        with pytest.raises(InputError, match=said):
            formats.reader(name, tmp_path)


def test_png_with_a_value_to_ignore(tmp_path: Path) -> None:
    values = BOX * 3
    values[9] = 255
    save(tmp_path / "a.png", values)
    np.testing.assert_array_equal(formats.reader("png", tmp_path, ignore=255)(image(), SIZE), BOX)
    assert formats.reader("png", tmp_path, ignore=0)(image(), SIZE)[9].all()
    with pytest.raises(InputError, match=r"255 beside 3.*ignore=255"):
        formats.reader("png", tmp_path)(image(), SIZE)


def test_a_value_to_ignore_is_refused_where_no_mask_holds_values(tmp_path: Path) -> None:
    colours = BOX[..., None] * np.array([128, 0, 0])
    save(tmp_path / "cat" / "rgb.png", colours)
    save(tmp_path / "cat" / "rgba.png", np.dstack([colours, BOX * 255]))
    save(tmp_path / "cat" / "grey.jpg", np.kron(BOX * 255, np.ones((8, 8))))
    for name, size in (("rgb", SIZE), ("rgba", SIZE), ("grey", (96, 80))):
        file = image(f"cat/{name}.jpg")
        with pytest.raises(InputError, match=rf"{name}\.\w+: ignore=255 cannot be obeyed"):
            formats.reader("png", tmp_path, ignore=255)(file, size)
        for none in (None, 0):
            assert formats.reader("png", tmp_path, ignore=none)(file, size).any()


def test_a_value_to_ignore_is_no_part_of_a_soft_mask(tmp_path: Path) -> None:
    matte = (MATTE * 240).round()
    save(tmp_path / "a.png", np.where(np.arange(12) == 0, 255, matte))
    found = formats.reader("png", tmp_path, ignore=255)(image(), SIZE)
    np.testing.assert_array_equal(found, (matte > 127) & (np.arange(12) > 0))


def test_void_beside_ids_on_a_transparent_background_is_ignored_where_that_is_said(
    tmp_path: Path,
) -> None:
    values = BOX * 3
    values[9] = 255
    picture = _palette(values)
    picture.save(tmp_path / "a.png", transparency=0)
    with pytest.raises(InputError, match=r"255 beside 3.*ignore=255"):
        formats.reader("png", tmp_path)(image(), SIZE)
    np.testing.assert_array_equal(formats.reader("png", tmp_path, ignore=255)(image(), SIZE), BOX)


def test_voc_counts_the_border_of_objects_as_background(tmp_path: Path) -> None:
    values = BOX * 12
    values[6, 3:9] = 255
    save(tmp_path / "a.png", values, palette=True)
    np.testing.assert_array_equal(formats.reader("voc", tmp_path)(image(), SIZE), BOX)


def test_imagenet_s_ids_lie_in_two_channels(tmp_path: Path) -> None:
    values = np.zeros((*SIZE[::-1], 3))
    values[BOX, 1] = 2  # id 512: zero in R
    values[9, :, 0], values[9, :, 1] = 1000 % 256, 1000 // 256  # ignored
    save(tmp_path / "n01440764" / "a.png", values)
    save(tmp_path / "n04356056" / "a.png", values)
    read = formats.reader("imagenet-s", tmp_path)
    np.testing.assert_array_equal(read(image("n01440764/a.JPEG"), SIZE), BOX)
    assert read(image("n04356056/a.JPEG"), SIZE) is None  # a merged synset
    save(tmp_path / "n01440764" / "b.png", BOX * 1)
    with pytest.raises(InputError, match=r"b\.png.*no colour channels"):
        formats.reader("imagenet-s", tmp_path)(image("n01440764/b.JPEG"), SIZE)


def coco(tmp_path: Path, *segmentations: object, categories: tuple[int, ...] = (1, 1, 1)) -> Path:
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": SIZE[0], "height": SIZE[1]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {
                "id": i,
                "image_id": 5,
                "category_id": c,
                "bbox": [3, 2, 6, 4],
                "iscrowd": 0,
                **({"segmentation": s} if s else {}),
            }
            for i, (s, c) in enumerate(zip(segmentations, categories, strict=False))
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def run_lengths(mask: np.ndarray) -> dict[str, object]:
    counts, last = [], 0
    for value in mask.T.ravel():  # column by column, starting with background
        if value == last and counts:
            counts[-1] += 1
        else:
            counts += [0, 1] if value and not counts else [1]
            last = value
    return {"counts": [int(c) for c in counts], "size": list(mask.shape)}


@pytest.mark.parametrize("kind", ["polygon", "rle", "compressed", "box"])
def test_coco_polygons_run_lengths_and_boxes(tmp_path: Path, kind: str) -> None:
    rle = pytest.importorskip("pycocotools.mask")
    packed = rle.encode(np.asfortranarray(BOX.astype(np.uint8)))
    shape = {
        "polygon": [[3, 2, 9, 2, 9, 6, 3, 6]],
        "rle": run_lengths(BOX),
        "compressed": {"size": packed["size"], "counts": packed["counts"].decode()},
        "box": None,
    }[kind]
    np.testing.assert_array_equal(formats.reader("coco", coco(tmp_path, shape))(image(), SIZE), BOX)


def test_coco_takes_the_category_of_the_class_folder_or_all(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    whole = [[0, 0, 12, 0, 12, 10, 0, 10]]
    read = formats.reader("coco", coco(tmp_path, None, whole, categories=(1, 2)))
    np.testing.assert_array_equal(read(image("cat/a.jpg"), SIZE), BOX)
    assert read(image("dog/a.jpg"), SIZE).all()
    assert read(image("any/a.jpg"), SIZE).all()
    assert read(image("cat/b.jpg"), SIZE) is None
    with pytest.raises(InputError, match=r"is 13x10 pixels, instances.json says 12x10"):
        read(image(), (13, 10))


@pytest.mark.parametrize("shape", [[[]], [[1, 2]], [[1, 2, 3, 4]]])
def test_polygons_that_enclose_nothing_give_way_to_the_box(tmp_path: Path, shape: list) -> None:
    pytest.importorskip("pycocotools")
    np.testing.assert_array_equal(formats.reader("coco", coco(tmp_path, shape))(image(), SIZE), BOX)


def test_an_annotation_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    with pytest.raises(InputError, match=r"annotation 0 of a\.jpg"):
        formats.reader("coco", coco(tmp_path, {"size": [3, 3], "counts": [2, 7]}))(image(), SIZE)


def test_files_are_found_where_folders_were_renamed(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    path = coco(tmp_path, None)
    path.write_text(path.read_text().replace('"a.jpg"', '"train2017/a.jpg"'))
    np.testing.assert_array_equal(formats.reader("coco", path)(image(), SIZE), BOX)


def test_an_alpha_channel_is_no_foreground(tmp_path: Path) -> None:
    values = np.zeros((*SIZE[::-1], 4))
    values[..., 3] = 255
    values[BOX, 0] = 9
    save(tmp_path / "a.png", values)
    np.testing.assert_array_equal(formats.reader("png", tmp_path)(image(), SIZE), BOX)


def test_voc_xml_boxes_count_from_one_with_both_corners_inside(tmp_path: Path) -> None:
    box = (
        "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
        "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    )
    body = box.format("cat", 4, 3, 9, 6) + box.format("dog", 1, 1, 12, 10)
    (tmp_path / "a.xml").write_text(f"<annotation>{body}</annotation>")
    (tmp_path / "b.xml").write_text("<annotation")
    read = formats.reader("voc-boxes", tmp_path)
    np.testing.assert_array_equal(read(image("cat/a.jpg"), SIZE), BOX)
    assert read(image("none/a.jpg"), SIZE).all()
    with pytest.raises(InputError, match=r"b\.xml: not a Pascal VOC annotation"):
        read(image("cat/b.jpg"), SIZE)


def test_boxes_from_csv_add_up_and_are_clipped(tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text(
        "image,xmin,ymin,xmax,ymax\na.jpg,3,2,9,6\ncat/b.jpg,-5,-5,2,2\ncat/b.jpg,11,9,40,40\n"
    )
    read = formats.reader("boxes", table)
    np.testing.assert_array_equal(read(image("cat/a.jpg"), SIZE), BOX)
    corners = read(image("cat/b.jpg"), SIZE)
    assert corners.sum() == 5
    assert corners[9, 11]
    assert read(image("cat/c.jpg"), SIZE) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("jpeg", None, "choose one of png, imagenet-s, coco"),
        ("png", None, "no such folder"),
        ("boxes", "image,left\na,1\n", "must be CSV with image,xmin,ymin,xmax,ymax"),
        ("boxes", "image,xmin,ymin,xmax,ymax\na,nan,0,1,1\n", "not a finite number"),
        ("coco", "[1]", "not a COCO instances file"),
        ("coco", "{", "not a readable JSON file"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    source = tmp_path / "source"
    if content is not None:
        source.write_text(content)
    with pytest.raises(InputError, match=message):
        formats.reader(name, source)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", BOX)
    with pytest.raises(InputError, match=r"is 12x10 pixels, its image 13x10"):
        formats.reader("png", tmp_path)(image(), (13, 10))


# --- exports of tools -----------------------------------------------------------------------------


def packed_brush(mask: np.ndarray) -> list[int]:
    """Label Studio's run lengths, one run for each value, as thi.ng/rle-pack writes them."""
    values = (np.repeat(mask.ravel(), 4) * 255).tolist()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    place = 0
    while place < len(values):
        end = place
        while end < len(values) and values[end] == values[place]:
            end += 1
        bits += f"1{3:02b}{end - place - 1:016b}{values[place]:08b}"
        place = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


LABEL_STUDIO = {
    "brush": {"format": "rle", "rle": packed_brush(BOX), "brushlabels": ["cat"]},
    "polygon": {"points": [[25, 20], [75, 20], [75, 60], [25, 60]], "polygonlabels": ["cat"]},
    "rectangle": {"x": 25, "y": 20, "width": 50, "height": 40, "rectanglelabels": ["cat"]},
    "turned": {"x": 75, "y": 20, "width": 40 * 10 / 12, "height": 50 * 12 / 10, "rotation": 90,
               "rectanglelabels": ["cat"]},
}  # fmt: skip


@pytest.mark.parametrize("kind", LABEL_STUDIO)
def test_label_studio(kind: str, tmp_path: Path) -> None:
    other = {"x": 0, "y": 0, "width": 10, "height": 10, "rectanglelabels": ["dog"]}
    results = [
        {"original_width": 12, "original_height": 10, "value": value}
        for value in (LABEL_STUDIO[kind], other)
    ]
    task = {"id": 3, "data": {"image": "/data/upload/1/0123abcd-a.jpg"},
            "annotations": [{"result": [], "was_cancelled": 1}, {"result": results}]}  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps([task]))
    read = formats.reader("label-studio", tmp_path / "export.json")
    np.testing.assert_array_equal(read(image(), SIZE), BOX)
    assert read.size(image()) == SIZE
    assert read(image("cat/other.jpg"), SIZE) is None
    with pytest.raises(InputError, match=r"is 12x11 pixels, export\.json says 12x10"):
        read(image(), (12, 11))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("/data/upload/0123abcd-a.jpg", "a.jpg"),
        ("http://host:8080/data/upload/7/0123abcd-20231015-a.jpg", "20231015-a.jpg"),
        ("/data/local-files/?d=photos/cat/20231015-a.jpg", "20231015-a.jpg"),
        ("/data/local-files/?d=upload/20231015-a.jpg", "20231015-a.jpg"),
        ("s3://bucket/cat/20231015-a.jpg", "20231015-a.jpg"),
        ("20231015-a.jpg", "20231015-a.jpg"),
    ],
)
def test_only_what_label_studio_puts_before_a_name_is_taken_off(
    place: str, name: str, tmp_path: Path
) -> None:
    result = {"original_width": 12, "original_height": 10, "value": LABEL_STUDIO["rectangle"]}
    task = {"id": 3, "data": {"image": place}, "annotations": [{"result": [result]}]}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    files = [image(f"cat/{file}") for file in ("a.jpg", "20231015-a.jpg")]
    read = formats.reader("label-studio", tmp_path / "export.json", images=files)
    assert [file.name for file in files if read(file, SIZE) is not None] == [name]


def test_label_studio_refuses_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": []}')
    with pytest.raises(InputError, match="not Label Studio's JSON export"):
        formats.reader("label-studio", tmp_path / "a.json")
    value = {"rle": packed_brush(BOX)[:9], "brushlabels": ["cat"]}
    result = {"original_width": 12, "original_height": 10, "value": value}
    task = {"id": 3, "data": {"image": "a.jpg"}, "annotations": [{"result": [result]}]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    with pytest.raises(InputError, match=r"task 3: its brush cannot be read .it ends too early"):
        formats.reader("label-studio", tmp_path / "a.json")(image(), SIZE)


RECTANGLE = LABEL_STUDIO["rectangle"]


@pytest.mark.parametrize(
    ("value", "more", "said"),
    [
        ({**RECTANGLE, "width": 90}, {}, r"task 3: a rectangle ends at 115 % of its image"),
        ({**RECTANGLE, "y": 10, "height": 160}, {}, r"ends at 170 % of its image; must be in per"),
        (RECTANGLE, {"image_rotation": 90}, r"task 3: was annotated on a rotated image"),
    ],
)
def test_label_studio_is_not_guessed_at(value: dict, more: dict, said: str, tmp_path: Path) -> None:
    result = {"original_width": 12, "original_height": 10, "value": value, **more}
    task = {"id": 3, "data": {"image": "a.jpg"}, "annotations": [{"result": [result]}]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    with pytest.raises(InputError, match=said):
        formats.reader("label-studio", tmp_path / "a.json")(image(), SIZE)


@pytest.mark.parametrize("kind", ["label-studio", "cvat", "sam"])
def test_two_of_one_name_in_an_export_are_taken_for_neither(kind: str, tmp_path: Path) -> None:
    result = {"original_width": 12, "original_height": 10, "value": RECTANGLE}
    tasks = [
        {"data": {"image": f"/data/upload/1/{n}123abcd-a.jpg"}, "annotations": [{"result": [r]}]}
        for n, r in ((1, result), (2, {**result, "value": LABEL_STUDIO["polygon"]}))
    ]
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    inside = f'<image name="a.jpg">{CVAT["box"]}</image>'
    (tmp_path / "a.xml").write_text(f"<annotations>{inside}{inside}</annotations>")
    (tmp_path / "sam").mkdir()
    for number in range(2):
        one = {"image": {"file_name": "a.jpg"}, "annotations": []}
        (tmp_path / "sam" / f"{number}.json").write_text(json.dumps(one))
    places = {"label-studio": "a.json", "cvat": "a.xml", "sam": "sam"}
    with pytest.raises(InputError, match=r"holds .*a\.jpg twice; must hold each image once"):
        formats.reader(kind, tmp_path / places[kind])(image(), SIZE)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ('<box label="cat" xtl="4" ytl="2" xbr="8" ybr="8" rotation="90"/>', (3, 3, 9, 7)),
        ('<box label="cat" xtl="4" ytl="2" xbr="8" ybr="8" rotation="180.0"/>', (4, 2, 8, 8)),
        ('<box label="cat" xtl="4" ytl="2" xbr="8" ybr="8" rotation="0.0"/>', (4, 2, 8, 8)),
        ('<ellipse label="cat" cx="6" cy="5" rx="2" ry="4" rotation="90"/>', (2, 3, 10, 7)),
        ('<ellipse label="cat" cx="6" cy="5" rx="2" ry="4"/>', (4, 1, 8, 9)),
    ],
)
def test_shapes_of_cvat_are_turned_about_their_centre(
    shape: str, seen: tuple[int, ...], tmp_path: Path
) -> None:
    text = f'<annotations><image name="a.jpg" width="12" height="10">{shape}</image></annotations>'
    (tmp_path / "a.xml").write_text(text)
    mask = formats.reader("cvat", tmp_path / "a.xml")(image(), SIZE)
    rows, columns = np.nonzero(mask)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == seen


@pytest.mark.parametrize(
    ("stated", "refused"),
    [("24x20", True), ("10x12", True), ("12x10", False), ("0x0", False), ("x", False)],
)
def test_voc_boxes_are_of_an_image_of_the_size_that_they_state(
    stated: str, refused: bool, tmp_path: Path
) -> None:
    width, height = stated.split("x")
    box = "<xmin>4</xmin><ymin>3</ymin><xmax>9</xmax><ymax>6</ymax>"
    (tmp_path / "a.xml").write_text(
        f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        f"<object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
    )
    read = formats.reader("voc-boxes", tmp_path)
    if refused:
        with pytest.raises(InputError, match=rf"is 12x10 pixels, .*a\.xml says {stated}"):
            read(image(), SIZE)
    else:
        np.testing.assert_array_equal(read(image(), SIZE), BOX)
        assert read.size(image()) == (SIZE if stated == "12x10" else None)


CVAT = {
    "polygon": '<polygon label="cat" points="3,2;9,2;9,6;3,6"/>',
    "box": '<box label="cat" xtl="3" ytl="2" xbr="9" ybr="6"/>',
    "mask": '<mask label="cat" rle="0, 24" left="3" top="2" width="6" height="4"/>',
}


@pytest.mark.parametrize("kind", CVAT)
def test_cvat(kind: str, tmp_path: Path) -> None:
    inside = f'{CVAT[kind]}<box label="dog" xtl="0" ytl="0" xbr="2" ybr="2"/><tag label="x"/>'
    size = 'width="12" height="10"'
    text = f'<annotations><image name="cat/a.jpg" {size}>{inside}</image></annotations>'
    (tmp_path / "export.xml").write_text(text)
    read = formats.reader("cvat", tmp_path / "export.xml")
    np.testing.assert_array_equal(read(image(), SIZE), BOX)
    with pytest.raises(InputError, match="no object called bee"):
        formats.reader("cvat", _cvat_of_dogs(tmp_path))(image("bee/a.jpg"), SIZE)
    (tmp_path / "export.xml").write_text(
        text.replace('"0, 24"', '"0, 25"').replace("3,2;", "nan,2;")
    )
    if kind != "box":
        with pytest.raises(InputError, match=r"run lengths do not fit|not finite"):
            formats.reader("cvat", tmp_path / "export.xml")(image(), SIZE)


def _cvat_of_dogs(folder: Path) -> Path:
    box = '<box label="dog" xtl="0" ytl="0" xbr="2" ybr="2"/>'
    bee = '<image name="bee/b.jpg"><box label="bee" xtl="0" ytl="0" xbr="2" ybr="2"/></image>'
    text = f'<annotations><image name="bee/a.jpg">{box}</image>{bee}</annotations>'
    (folder / "dogs.xml").write_text(text)
    return folder / "dogs.xml"


def test_sam_takes_the_only_mask_and_asks_where_there_are_several(tmp_path: Path) -> None:
    columns = BOX.T.ravel().astype(int)
    counts = np.diff(np.flatnonzero(np.diff(np.concatenate([[-1], columns, [-1]])))).tolist()
    runs = {"size": [10, 12], "counts": counts}
    one = {"image": {"file_name": "a.jpg", "width": 12, "height": 10},
           "annotations": [{"segmentation": runs}]}  # fmt: skip
    (tmp_path / "sa_1.json").write_text(json.dumps(one))
    (tmp_path / "b.json").write_text(json.dumps([{"segmentation": runs}, {"segmentation": runs}]))
    read = formats.reader("sam", tmp_path)
    np.testing.assert_array_equal(read(image(), SIZE), BOX)
    with pytest.raises(InputError, match="has 2 masks, and nothing says which is the object"):
        read(image("cat/b.jpg"), SIZE)


RUNS = {"size": [10, 12], "counts": [20, 100]}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("sam", [{"segmentation": {"size": [10, 12]}}]),
        ("sam", [{"segmentation": 7}]),
        ("sam", [{"segmentation": {**RUNS, "counts": [1e400]}}]),
        ("sam", {"image": [], "annotations": [{"segmentation": RUNS}]}),
        ("label-studio", [{"data": {"text": "a"}, "annotations": []}]),
        ("label-studio", [{"data": {}, "annotations": []}]),
    ],
)
def test_an_export_that_lacks_something_is_said(kind: str, content: object, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content).replace("Infinity", "1e400"))
    with pytest.raises(InputError, match=r"a\.json.*(cannot be read|not what SAM|not a readable)"):
        formats.reader(kind, tmp_path / ("" if kind == "sam" else "a.json"))(image(), SIZE)


ROWS = np.repeat(np.arange(10)[:, None], 12, 1)


def with_void(ids: np.ndarray) -> np.ndarray:
    return np.where(np.arange(12) == 0, 255, ids)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (ROWS * 2, None),
        (with_void(ROWS * 3), "255 beside 3, 6, 9, 12, ..., as if it meant not labelled"),
        (with_void(ROWS * 15), "255 beside 15"),
        (np.where(with_void(ROWS) == 255, 65535, ROWS), "65535 beside 1, 2, 3, 4, ..., as if"),
        (ROWS * 100, None),
    ],
    ids=["ids", "nine small ids", "ids up to 135", "16 bits", "ids of 16 bits"],
)
def test_ids_with_void_are_not_taken_for_a_soft_mask(
    tmp_path: Path, values: np.ndarray, message: str | None
) -> None:
    deep = Image.fromarray(values.astype(np.uint16 if values.max() > 255 else np.uint8))
    deep.save(tmp_path / "a.png")
    read, void = formats.reader("png", tmp_path), 65535 if values.max() == 65535 else 255
    if message is None:
        np.testing.assert_array_equal(read(image(), SIZE), values > 0)
        return
    with pytest.raises(InputError, match=message):
        read(image(), SIZE)
    found = formats.reader("png", tmp_path, ignore=void)(image(), SIZE)
    np.testing.assert_array_equal(found, (values > 0) & (values < void))


RAMP = np.arange(120).reshape(10, 12)
MATTE = np.where(RAMP < 40, 0, (RAMP - 40) / 79)  # soft, and as dark as it is told to be
CELLS = np.kron(np.arange(64).reshape(8, 8) * 300, np.ones((9, 9), int))  # ids with gaps


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ((MATTE * 255).round().astype(np.uint8), MATTE > 0.5),
        ((MATTE * 65535).round().astype(np.uint16), MATTE > 0.5),
        ((MATTE * 50000).round().astype(np.uint16), MATTE * 50000 > 65535 / 2),
        (CELLS.astype(np.uint16), CELLS > 0),
        ((MATTE * 255).round().astype(np.float32), MATTE > 0.5),
    ],
    ids=["8 bits", "16 bits", "16 bits, never white", "ids of 16 bits", "floating point"],
)
def test_a_soft_mask_is_cut_at_half_whatever_its_depth(
    values: np.ndarray, seen: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = formats.reader("png", tmp_path)(image(), values.shape[::-1])
    np.testing.assert_array_equal(found, seen)


@pytest.mark.parametrize("times", [2, 3])
def test_a_smoothed_edge_of_few_levels_is_cut_at_half(tmp_path: Path, times: int) -> None:
    """Drawn twice or three times as large and made smaller: five or ten levels at most."""
    y, x = np.mgrid[: 40 * times, : 40 * times] / times
    large = (np.hypot(y - 20, x - 20) < 9).reshape(40, times, 40, times).mean((1, 3))
    assert 3 < len(np.unique(large)) <= times**2 + 1
    drawn = (large * 255).round().astype(np.uint8)
    Image.fromarray(drawn).save(tmp_path / "a.png")
    found = formats.reader("png", tmp_path)(image(), (40, 40))
    np.testing.assert_array_equal(found, drawn > 127)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(image_id=99), "annotation 0 is of image 99"),
        (lambda c: c["images"][0].update(width="wide"), "not a COCO instances file"),
        (lambda c: c["images"][0].update(width=None), None),
        (lambda c: c["images"][0].pop("width"), None),
    ],
    ids=["unknown image", "width in words", "no width", "width left out"],
)
def test_what_a_coco_file_does_not_say(tmp_path: Path, change: Any, message: str | None) -> None:
    pytest.importorskip("pycocotools")
    path = coco(tmp_path, None)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    if message is None:
        np.testing.assert_array_equal(formats.reader("coco", path)(image(), SIZE), BOX)
        return
    with pytest.raises(InputError, match=message):
        formats.reader("coco", path)


@pytest.mark.parametrize("part", ["images", "categories"])
@pytest.mark.parametrize("same", [5, "5"])
def test_an_id_that_stands_twice_is_refused(tmp_path: Path, part: str, same: object) -> None:
    pytest.importorskip("pycocotools")
    path = coco(tmp_path, None)
    content = json.loads(path.read_text())
    content["categories"][0]["id"] = 5
    content[part].append({"id": same, "file_name": "b.jpg", "name": "bee"})
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"two of its {part} have the id 5"):
        formats.reader("coco", path)


# --- of which object, and of which image ----------------------------------------------------------


def studio(*values: dict[str, Any]) -> str:
    results = [{"original_width": 12, "original_height": 10, "value": value} for value in values]
    return json.dumps([{"data": {"image": "a.jpg"}, "annotations": [{"result": results}]}])


def of_cvat(inside: str) -> str:
    box = '<box label="dog" xtl="0" ytl="0" xbr="2" ybr="2"/>'
    size = 'width="12" height="10"'
    return f'<annotations><image name="a.jpg" {size}>{inside}{box}</image></annotations>'


DOG = {"x": 0, "y": 0, "width": 10, "height": 10, "rectanglelabels": ["dog"]}
CAT = '<{0} label="cat" points="1,1;5,5;9,1"/>'
TABLE = "image,xmin,ymin,xmax,ymax"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("cvat", of_cvat(CAT.format("polyline")), "has only points or lines called cat"),
        ("cvat", of_cvat(CAT.format("skeleton")), "has only points or lines called cat"),
        ("cvat", of_cvat(CAT.format("points") + CVAT["box"]), BOX),
        ("label-studio", studio({**RECTANGLE, "rectanglelabels": ["dog", "cat"]}, DOG), BOX),
        ("label-studio", studio({"x": 1, "y": 1, "keypointlabels": ["cat"]}, DOG), "only points"),
        ("boxes", f"{TABLE},class\na.jpg,3,2,9,6,cat\na.jpg,0,0,2,2,dog\n", BOX),
        ("boxes", f"{TABLE},label\na.jpg,3,2,9,6,x\n", BOX),  # no cat in it: all count
        ("boxes", f"{TABLE},label\na.jpg,3,2,9,6,dog\nb.jpg,0,0,2,2,cat\n", "no object called cat"),
        ("boxes", f"{TABLE},label,class\na.jpg,3,2,9,6,x,y\n", "label and class could both be"),
    ],
)
def test_only_objects_of_the_class_count_however_they_are_drawn(
    name: str, content: str, found: np.ndarray | str, tmp_path: Path
) -> None:
    (tmp_path / "source").write_text(content)
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            formats.reader(name, tmp_path / "source")(image(), SIZE)
    else:
        np.testing.assert_array_equal(
            formats.reader(name, tmp_path / "source")(image(), SIZE), found
        )


def labelled(kind: str, folder: Path, *labels: str) -> Path:
    """A source in which a.jpg and b.jpg have an object of each label, the first one at BOX."""
    places = [(3, 2, 9, 6), (0, 0, 2, 2)]
    drawn = list(zip(labels, places, strict=False))
    if kind == "voc-boxes":
        for name in "ab":
            objects = "".join(
                f"<object><name>{label}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
                f"<xmax>{end}</xmax><ymax>{low}</ymax></bndbox></object>"
                for label, (x, y, end, low) in drawn
            )
            (folder / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
        return folder
    rows = [f"{n}.jpg,{','.join(map(str, p))},{label}" for n in "ab" for label, p in drawn]
    boxes = "".join(
        f'<box label="{label}" xtl="{x}" ytl="{y}" xbr="{end}" ybr="{low}"/>'
        for label, (x, y, end, low) in drawn
    )
    images = "".join(f'<image name="{name}.jpg">{boxes}</image>' for name in "ab")
    text = "\n".join((f"{TABLE},class", *rows)) if kind == "boxes" else f"<a>{images}</a>"
    (folder / "source").write_text(text)
    return folder / "source"


@pytest.mark.parametrize("kind", ["boxes", "voc-boxes", "cvat"])
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("cat", "person"), []),
        (("cat", "Cat"), []),
        (("Cat", "person"), ["category Cat is taken for class folder cat"]),
        (("feline", "person"), ["no category is called cat: all objects of its images count"]),
    ],
)
def test_how_labels_are_understood_is_said_once_for_a_folder(
    kind: str, labels: tuple[str, str], said: list[str], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    read = formats.reader(kind, labelled(kind, tmp_path, *labels))
    with caplog.at_level("INFO", "refocus"):
        masks = [read(image(f"cat/{name}.jpg"), SIZE) for name in "ab"]
    assert caplog.messages == said
    for mask in masks:
        assert mask[2:6, 3:9].all()
        assert mask[0, 0] == ("feline" in labels)


def test_a_class_of_one_of_many_voc_files_is_known(tmp_path: Path) -> None:
    box = "<bndbox><xmin>4</xmin><ymin>3</ymin><xmax>9</xmax><ymax>6</ymax></bndbox>"
    for number in range(402):
        label = "cat" if number == 1 else "person"
        text = f"<annotation><object><name>{label}</name>{box}</object></annotation>"
        (tmp_path / f"{number}.xml").write_text(text)
    read = formats.reader("voc-boxes", tmp_path)
    np.testing.assert_array_equal(read(image("cat/1.jpg"), SIZE), BOX)
    with pytest.raises(InputError, match=r"2\.xml: has no object called cat"):
        read(image("cat/2.jpg"), SIZE)


def test_two_images_of_one_file_name_are_not_one(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    file = coco(tmp_path, None, None)
    content = json.loads(file.read_text())
    content["images"].append({**content["images"][0], "id": 77})
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="two images have the file_name"):
        formats.reader("coco", file)(image(), SIZE)


PAIRS = [[3, 2], [9, 2], [9, 6], [3, 6]]


@pytest.mark.parametrize("shape", [PAIRS, [PAIRS], [PAIRS, [[3, 2], [4, 2], [3, 3]]]])
def test_corners_of_coco_may_be_pairs(shape: object, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    file = coco(tmp_path, shape)
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["bbox"] = [0, 0, 12, 9]
    file.write_text(json.dumps(content))
    np.testing.assert_array_equal(formats.reader("coco", file)(image(), SIZE), BOX)
