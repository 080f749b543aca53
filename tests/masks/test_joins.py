"""Which entry belongs to which image: the longest end of a path, a bare name only where unique."""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus.data.folders import image_files
from refocus.data.images import read_image
from refocus.data.sources.opened import opened
from refocus.data.tables import number
from refocus.errors import InputError
from refocus.evaluation.plan import Plan, read_groups
from refocus.evaluation.suites import TestSet
from refocus.masks import formats
from refocus.masks.joins import Join
from refocus.records import Sample
from tests.makers import Build

SIZE = (40, 30)  # width, height


def check_joined(names: list[str], files: list[Path], expected: list[str | None]) -> None:
    """Each file has its expected entry; "?" where it is refused."""
    join = Join(names, files)
    for file, name in zip(files, expected, strict=True):
        if name == "?":
            with pytest.raises(InputError, match=r"tell\s+them apart"):
                join(file)
        else:
            assert join(file) == name


@pytest.mark.parametrize(
    ("names", "images", "expected"),
    [
        (["dog/0.png"], ["cat/0.png", "dog/0.png"], [None, "dog/0.png"]),
        (
            ["train/cat/0.png", "train/dog/0.png"],
            ["cat/0.png", "dog/0.png"],
            ["train/cat/0.png", "train/dog/0.png"],
        ),
        (["a\\0.png"], ["a/0.png"], ["a\\0.png"]),
        (["train2017/7.jpg"], ["cat/7.jpg"], ["train2017/7.jpg"]),
        (["./a/0.jpg", "b/0.jpg"], ["a/0.jpg", "b/0.jpg"], ["./a/0.jpg", "b/0.jpg"]),
        (["a/0"], ["a/0.png"], ["a/0"]),
        (["a/0.JPG"], ["a/0.jpg"], ["a/0.JPG"]),
        (["a/0.png"], ["a/0.jpg"], ["a/0.png"]),
        (["cafe\u0301/0.png"], ["café/0.png", "thé/0.png"], ["cafe\u0301/0.png", None]),
        (["x/cat/0.png", "y/dog/0.png"], ["cat/0.png", "emu/0.png"], ["x/cat/0.png", "?"]),
        (["0.png"], ["cat/0.png", "dog/0.png"], ["?", "?"]),
        (["x/0.png", "y/0.png"], ["cat/0.png"], ["?"]),
        (["cat/0.png"], ["a/cat/0.png", "b/cat/0.png"], ["?", "?"]),
        ([], ["cat/0.png"], [None]),
        (
            ["cat/0.png", "dog/1.png"],
            ["cat/0.jpg", "dog/0.png", "dog/1.png"],
            ["cat/0.png", None, "dog/1.png"],
        ),
        (["cat/0.png", "dog/0.jpg"], ["cat/0.jpg", "dog/0.png"], ["cat/0.png", "dog/0.jpg"]),
        (["cat/0.png", "dog/0.jpg"], ["cat/0.png", "emu/0.png"], ["cat/0.png", None]),
        (["0.png", "0.jpg"], ["cat/0.png", "cat/0.jpg"], ["0.png", "0.jpg"]),
        # files are numbered anew in each class, and images are a part of those annotated
        (["dog/0.png", "dog/1.png"], ["cat/0.png", "dog/1.png"], [None, "dog/1.png"]),
        (["s/dog/0.png"], ["cat/0.png", "dog/1.png", "emu/0.png"], [None, None, None]),
        (["dog/0.png", "0.png"], ["cat/0.png", "dog/1.png"], ["?", None]),
    ],
)
def test_an_image_gets_its_own_entry_or_none(
    names: list[str], images: list[str], expected: list[str | None]
) -> None:
    files = [Path("/data") / name for name in images]
    check_joined(names, files, expected)


SAME = [("a/1.png", "cat"), ("b/1.png", "cat")]  # which are cat/1.png and cat/1-2.png when unpacked
OTHER = [("a/1.png", "cat"), ("b/1.png", "dog")]


@pytest.mark.parametrize("kind", ["csv", "tar"])
@pytest.mark.parametrize(
    ("rows", "names", "expected"),
    [
        (SAME, ["b/1.png"], [None, "b/1.png"]),
        (SAME, ["a/1.png", "b/1.png"], ["a/1.png", "b/1.png"]),
        (SAME, ["1-2.png"], [None, None]),
        (SAME, ["cat/1.png"], ["?", "?"]),
        (OTHER, ["cat/1.png", "dog/1.png"], ["cat/1.png", "dog/1.png"]),
        (OTHER, ["1.png"], ["?", "?"]),
    ],
)
def test_an_image_of_a_source_is_known_by_its_path_there(
    kind: str,
    rows: list[tuple[str, str]],
    names: list[str],
    expected: list[str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REFOCUS_CACHE", str(tmp_path / "cache"))
    for red, (name, label) in enumerate(rows):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (9, 9), (red, 0, 0)).save(tmp_path / name)
        (tmp_path / name).with_suffix(".cls").write_text(label)
    if kind == "csv":
        lines = [",".join(row) for row in [("path", "label"), *rows]]
        (tmp_path / "t.csv").write_text("\n".join(lines))
    else:
        with tarfile.open(tmp_path / "t.tar", "w") as tar:
            for name, _ in rows:
                tar.add(tmp_path / name, name)
                tar.add((tmp_path / name).with_suffix(".cls"), Path(name).with_suffix(".cls"))
    files = image_files(opened(tmp_path / f"t.{kind}").images)
    files.sort(key=lambda file: read_image(file).getpixel((0, 0)))  # as they are in `rows`
    check_joined(names, files, expected)


# --- every format joins so ----------------------------------------------------------------------

BOX = (5, 5, 15, 15)


def coco(source: Path) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "dog/0.png", "width": SIZE[0], "height": SIZE[1]}],
        "categories": [{"id": 7, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [5, 5, 10, 10]}],
    }
    source.write_text(json.dumps(content))
    return source


def boxes(source: Path) -> Path:
    source.write_text("image,xmin,ymin,xmax,ymax\ndog/0.png,5,5,15,15\n")
    return source


def voc_boxes(source: Path) -> Path:
    box = "<xmin>6</xmin><ymin>6</ymin><xmax>15</xmax><ymax>15</ymax>"
    (source / "dog").mkdir(parents=True)
    (source / "dog" / "0.xml").write_text(
        f"<annotation><object><name>dog</name><bndbox>{box}</bndbox></object></annotation>"
    )
    return source


def png(source: Path) -> Path:
    (source / "dog").mkdir(parents=True)
    mask = Image.new("L", SIZE)
    mask.paste(1, BOX)  # 255 is the border of objects in VOC
    mask.save(source / "dog" / "0.png")
    return source


SOURCES: dict[str, Callable[[Path], Path]] = {
    "coco": coco,
    "boxes": boxes,
    "voc-boxes": voc_boxes,
    "png": png,
    "voc": png,
}


@pytest.mark.parametrize("name", SOURCES)
def test_no_image_gets_the_mask_of_another_class(tmp_path: Path, name: str) -> None:
    if name == "coco":
        pytest.importorskip("pycocotools")
    images = [tmp_path / "i" / kind / "0.png" for kind in ("cat", "dog")]
    read = formats.reader(name, SOURCES[name](tmp_path / "source"), images=images)
    assert read(images[0], SIZE) is None
    mask = np.zeros(SIZE[::-1], bool)
    mask[5:15, 5:15] = True
    np.testing.assert_array_equal(read(images[1], SIZE), mask)


def test_the_extension_of_a_drawn_mask_does_not_say_which_image_it_is_of(tmp_path: Path) -> None:
    folder = png(tmp_path / "source")
    (folder / "dog" / "0.png").rename(folder / "0.png")
    images = [tmp_path / name for name in ("cat/0.jpg", "dog/0.png")]
    for image in images:
        with pytest.raises(InputError, match=r"0\.png could as well be (cat/0\.jpg|dog/0\.png)"):
            formats.reader("png", folder, images=images)(image, SIZE)


def test_the_name_of_an_image_without_objects_is_not_that_of_another(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    content = json.loads(coco(tmp_path / "c.json").read_text())
    content["images"].append({**content["images"][0], "id": 2, "file_name": "val/dog/0.png"})
    (tmp_path / "c.json").write_text(json.dumps(content))
    files = [Path(f"/data/{name}/dog/0.png") for name in ("val", "other")]
    read = formats.reader("coco", tmp_path / "c.json", images=files)
    assert read(files[0], SIZE) is None
    with pytest.raises(InputError, match="could both be meant"):
        read(files[1], SIZE)


# --- categories ---------------------------------------------------------------------------------


@pytest.mark.parametrize("category", ["traffic light", "Traffic_Light", "traffic-light"])
def test_a_category_that_nearly_has_the_folders_name_is_taken_and_told(
    tmp_path: Path, category: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pycocotools")
    content = {
        "images": [{"id": "1", "file_name": "0.png", "width": SIZE[0], "height": SIZE[1]}],
        "categories": [{"id": 10, "name": category}, {"id": 1, "name": "person"}],
        "annotations": [  # ids of images as text and as number
            {"id": 1, "image_id": 1, "category_id": 10, "bbox": [5, 5, 10, 10]},
            {"id": 2, "image_id": "1", "category_id": 1, "bbox": [20, 20, 10, 10]},
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    with caplog.at_level("INFO", "refocus"):
        mask = formats.reader("coco", tmp_path / "c.json")(
            tmp_path / "traffic_light" / "0.png", SIZE
        )
    assert mask[10, 10]
    assert not mask[25, 25]
    assert f"category {category} is taken for class folder traffic_light" in caplog.text


def test_an_image_without_an_object_of_its_class_is_told(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    source = coco(tmp_path / "c.json")
    content = json.loads(source.read_text())
    content["categories"].append({"id": 8, "name": "cat"})
    source.write_text(json.dumps(content))
    with pytest.raises(InputError, match="no object of its class cat, but dog"):
        formats.reader("coco", source)(tmp_path / "cat" / "0.png", SIZE)


# --- tables -------------------------------------------------------------------------------------

TABLES = {
    "plain": ("image,xmin,ymin,xmax,ymax\na/0.png,5,5,15,15\n", "utf-8"),
    "mark at the start": ("image,xmin,ymin,xmax,ymax\na/0.png,5,5,15,15\n", "utf-8-sig"),
    "Excel's Unicode": ("image\txmin\tymin\txmax\tymax\na/0.png\t5\t5\t15\t15\n", "utf-16"),
    "semicolons": ("image;xmin;ymin;xmax;ymax\na/0.png;5;5;15;15\n", "utf-8"),
    "decimal commas": ("image;xmin;ymin;xmax;ymax\na/0.png;5,0;5,0;15,0;15,0\n", "utf-8"),
    "blanks": ("image, xmin, ymin, xmax, ymax\n a/0.png , 5, 5, 15, 15\n", "utf-8"),
    "blank lines": ("\nimage,xmin,ymin,xmax,ymax\n\na/0.png,5,5,15,15\n\n", "utf-8"),
    "capitals": ("Image,XMin,YMin,XMax,YMax\na/0.png,5,5,15,15\n", "utf-8"),
    "other order": ("xmin,ymin,xmax,ymax,label,image\n5,5,15,15,a,a/0.png\n", "utf-8"),
    "backslashes": ("image,xmin,ymin,xmax,ymax\na\\0.png,5,5,15,15\n", "utf-8"),
    "carriage returns": ("image,xmin,ymin,xmax,ymax\r\na/0.png,5,5,15,15\r\n", "utf-8"),
    "quotes": ('"image","xmin","ymin","xmax","ymax"\n"a/0.png","5","5","15","15"\n', "utf-8"),
    "two rows": ("image,xmin,ymin,xmax,ymax\na/0.png,5,5,10,15\na/0.png,10,5,15,15\n", "utf-8"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_as_people_have_them(tmp_path: Path, name: str) -> None:
    text, encoding = TABLES[name]
    (tmp_path / "b.csv").write_bytes(text.encode(encoding))
    mask = formats.reader("boxes", tmp_path / "b.csv")(tmp_path / "a" / "0.png", SIZE)
    expected = np.zeros(SIZE[::-1], bool)
    expected[5:15, 5:15] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image,group\na/0.png,x\nb/0.png,y\n", "utf-8-sig"),
        ("image;group\na\\0.png;x\nb\\0.png;y\n", "utf-8"),
        ("group, image\nx, data/a/0.png\n\ny, data/b/0.png\n", "utf-8"),
    ],
)
def test_groups_are_read_from_tables_as_people_have_them(
    tmp_path: Path, text: str, encoding: str
) -> None:
    (tmp_path / "g.csv").write_bytes(text.encode(encoding))
    samples = [Sample(tmp_path / "t" / name / "0.png", 0) for name in "ab"]
    found = read_groups(tmp_path / "g.csv", TestSet(tmp_path / "t", samples, lambda x: x))
    assert found == {"a/0.png": "x", "b/0.png": "y"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,group\na/0.png,x\na/0.png,y\n", "a/0.png is in x and y"),
        ("image,group\na/0.png,\n", "line 2: has no value for group"),
        ("image,kind\na/0.png,x\n", "does not have exactly one column group"),
        ("image,group\nz/9.png,x\n", "lists none of the images"),
        ("", "must be CSV"),
    ],
)
def test_groups_that_cannot_be_right_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "g.csv").write_text(text)
    samples = [Sample(tmp_path / "t" / name / "0.png", 0) for name in "ab"]
    with pytest.raises(InputError, match=message):
        read_groups(tmp_path / "g.csv", TestSet(tmp_path / "t", samples, lambda x: x))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (("x", "y"), {"cat/0.png": "x", "cat/0-2.png": "y"}),
        (("x", ""), {"cat/0.png": "x"}),
        (("", "y"), {"cat/0-2.png": "y"}),
    ],
)
def test_groups_of_a_table_are_those_of_its_lines(
    groups: tuple[str, str],
    expected: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REFOCUS_CACHE", str(tmp_path / "cache"))
    lines = ["path,label,group"]
    for at, group in enumerate(groups):
        file = tmp_path / f"seq{at}" / "0.png"
        file.parent.mkdir()
        Image.new("RGB", (9, 9), (at, 0, 0)).save(file)
        lines.append(f"seq{at}/0.png,cat,{group}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    found = opened(tmp_path / "t.csv")
    assert found.groups is not None
    samples = [Sample(image, 0) for image in image_files(found.images)]
    assert read_groups(found.groups, TestSet(found.images, samples, lambda x: x)) == expected


def test_an_image_that_is_left_out_keeps_its_group(tmp_path: Path, tiny: Build) -> None:
    (tmp_path / "g.csv").write_text("image,group\ncat/0.png,x\ndog/1.png,y\n")
    one, *others = (tmp_path / "t" / name for name in ("cat/0.png", "dog/0.png", "dog/1.png"))
    for at, image in enumerate((one, *others)):
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (at, 0, 0)).save(image)
    tests = Plan({"t": tmp_path / "t"}, leave_out=frozenset([one])).open("t", tiny())
    assert [s.image for s in tests.samples] == others
    assert read_groups(tmp_path / "g.csv", tests) == {"dog/1.png": "y"}


# --- impossible boxes, polygons, run lengths -----------------------------------------------------

IMPOSSIBLE_BOXES = {
    "shares": ((0.1, 0.1, 0.9, 0.9), "in fractions from 0 to 1"),
    "exchanged": ((15, 15, 5, 5), "ends before it begins"),
    "empty": ((5, 5, 5, 15), "ends before it begins"),
    "outside": ((100, 100, 160, 160), "outside of the image"),
    "above": ((5, -20, 15, -10), "outside of the image"),
    "not finite": ((5, 5, float("inf"), 15), "not a finite number"),
    "nan": ((5, float("nan"), 15, 15), "not a finite number"),
    "huge": ((5, 5, 1e30, 15), "not a finite number"),
    "words": (("five", 5, 15, 15), "not a finite number"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE_BOXES)
@pytest.mark.parametrize("kind", ["boxes", "voc-boxes"])
def test_boxes_that_cannot_be_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    box, message = IMPOSSIBLE_BOXES[name]
    if kind == "boxes":
        source = tmp_path / "b.csv"
        with source.open("w", newline="") as file:
            csv.writer(file).writerows([["image", "xmin", "ymin", "xmax", "ymax"], ["0.png", *box]])
    else:
        source = tmp_path / "v"
        source.mkdir()
        tags = ("xmin", "ymin", "xmax", "ymax")
        corners = [v + (1 if i < 2 and name != "words" else 0) for i, v in enumerate(box)] if (
            name not in ("words", "shares")
        ) else box  # fmt: skip
        inside = "".join(f"<{t}>{v}</{t}>" for t, v in zip(tags, corners, strict=True))
        (source / "0.xml").write_text(
            f"<annotation><object><name>a</name><bndbox>{inside}</bndbox></object></annotation>"
        )
    with pytest.raises(InputError, match=message):
        formats.reader(kind, source)(tmp_path / "a" / "0.png", SIZE)


CORNERS = [5, 5, 15, 5, 15, 15, 5, 15]
IMPOSSIBLE_SHAPES: dict[str, tuple[object, str]] = {
    "shares": ([[v / 40 for v in CORNERS]], "in fractions from 0 to 1"),
    "far outside": ([[5, 5, 3e10, 5, 15, 15]], "far outside of the image"),
    "ten million": ([[5, 5, 1e7, 5, 15, 15]], "far outside of the image"),
    "nan": ([[5, 5, float("nan"), 5, 15, 15]], "not a readable JSON|not finite"),
    "odd": ([[*CORNERS, 3]], "must be pairs"),
    "encloses nothing": ([[5, 5, 5, 5, 5, 5]], "encloses no pixel"),
    "outside": ([[50, 40, 60, 40, 60, 50, 50, 50]], "encloses no pixel"),
    "run lengths, large": ({"size": [1_000_000, 100_000], "counts": [10**11]}, "are for size"),
    "run lengths, exchanged": ({"size": [SIZE[0], SIZE[1]], "counts": [1200]}, "are for size"),
    "run lengths, short": ({"size": [30, 40], "counts": [3, 4]}, "do not add up"),
    "run lengths, negative": ({"size": [30, 40], "counts": [1300, -100]}, "do not add up"),
    "compressed, garbage": ({"size": [30, 40], "counts": "~~~~"}, "cannot be read|do not add up"),
    "compressed, endless": ({"size": [30, 40], "counts": "o" * 50}, "cannot be read|do not add up"),
    "empty": ({"size": [30, 40], "counts": [1200]}, "encloses no pixel"),
    "words": ([["a", 5, 6, 7, 8, 9]], "cannot be read"),
    "nested": ({"size": [30, 40], "counts": [[1]]}, "cannot be read"),
}


def shaped(source: Path, shape: object, box: object = (0, 0, 0, 0)) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "0.png", "width": SIZE[0], "height": SIZE[1]}],
        "annotations": [{"id": 5, "image_id": 1, "segmentation": shape, "bbox": box}],
    }
    source.write_text(json.dumps(content))
    return source


@pytest.mark.parametrize("name", IMPOSSIBLE_SHAPES)
def test_shapes_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    pytest.importorskip("pycocotools")
    shape, message = IMPOSSIBLE_SHAPES[name]
    source = shaped(tmp_path / "c.json", shape)
    with pytest.raises(InputError, match=message):
        formats.reader("coco", source)(tmp_path / "a" / "0.png", SIZE)


@pytest.mark.parametrize("shape", [CORNERS, [CORNERS], [[*CORNERS, 5, 5]]])
def test_a_polygon_may_lie_bare_or_in_a_list(tmp_path: Path, shape: object) -> None:
    pytest.importorskip("pycocotools")
    mask = formats.reader("coco", shaped(tmp_path / "c.json", shape))(tmp_path / "0.png", SIZE)
    assert mask[5:15, 5:15].all()
    assert mask.sum() == 100


@pytest.mark.parametrize("seed", range(5))
def test_compressed_run_lengths_are_read_as_the_coco_api_reads_them(
    tmp_path: Path, seed: int
) -> None:
    rle = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    mask = rng.random(SIZE[::-1]) < (0.02, 0.5, 0.98, 0.1, 0.001)[seed]
    mask[3, 3] = True
    packed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    shape = {"size": packed["size"], "counts": packed["counts"].decode()}
    read = formats.reader("coco", shaped(tmp_path / "c.json", shape))(tmp_path / "0.png", SIZE)
    np.testing.assert_array_equal(read, mask)


@pytest.mark.parametrize(
    ("cell", "right"),
    [
        *[("12,5", 12.5), ("1,25", 1.25), ("0,125", 0.125)],
        *[("1,234", None), ("12,345,678", None), ("1_0", None)],
    ],
)
def test_a_comma_in_a_number_is_read_in_one_way_only(cell: str, right: float | None) -> None:
    if right is not None:
        assert number(cell, "b.csv") == right
        return
    with pytest.raises(InputError, match=r"a comma for decimals or thousands|not a finite number"):
        number(cell, "b.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_may_start_with_the_line_that_excel_adds(
    tmp_path: Path, end: str, mark: str
) -> None:
    lines = ("sep=;", "image;xmin;ymin;xmax;ymax", "a/0.png;5;5;15;15", "")
    (tmp_path / "b.csv").write_bytes((mark + end.join(lines)).encode())
    mask = formats.reader("boxes", tmp_path / "b.csv")(Path("a/0.png"), SIZE)
    assert mask.sum() == 100
