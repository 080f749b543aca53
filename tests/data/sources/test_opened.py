"""What people bring their images in: each kind on a miniature, read as class folders."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus.data.folders import scan
from refocus.data.images import read_image
from refocus.data.sources import unpack
from refocus.data.sources.opened import opened, opened_masks, opened_pair
from refocus.errors import InputError
from refocus.reports.check import check
from tests.makers import Build, gradient, make_images, run

Make = Callable[[Path, Path], Path]  # from images and masks of CLASS/FILE to a source


def pixels(file: Path) -> np.ndarray:
    return np.asarray(read_image(file))


def rows(images: Path, masks: Path) -> list[tuple[str, str, Path, Path]]:
    """class, name, image, mask."""
    files = sorted(images.glob("*/*.png"))
    return [(f.parent.name, f.name, f, masks / f.parent.name / f.name) for f in files]


# --- makers of sources --------------------------------------------------------------------------


def as_csv(images: Path, masks: Path, delimiter: str = ",", ending: str = "csv") -> Path:
    root = images.parent
    lines = [("path", "label", "mask", "group")]
    for label, name, image, mask in rows(images, masks):
        group = "left" if name == "0.png" else "right"
        lines.append((os.path.relpath(image, root), label, os.path.relpath(mask, root), group))
    file = root / f"table.{ending}"
    file.write_text("\n".join(delimiter.join(line) for line in lines), encoding="utf-8")
    return file


def as_tsv(images: Path, masks: Path) -> Path:
    return as_csv(images, masks, "\t", "tsv")


def as_metadata(images: Path, masks: Path) -> Path:
    """`datasets`' image folder: files side by side and metadata.jsonl."""
    root = images.parent / "flat"
    root.mkdir()
    lines = []
    for label, name, image, mask in rows(images, masks):
        shutil.copy(image, root / f"{label}-{name}")
        shutil.copy(mask, root / f"{label}-{name}.mask.png")
        lines.append({"file_name": f"{label}-{name}", "label": label,
                      "mask": f"{label}-{name}.mask.png"})  # fmt: skip
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return root


def as_tar(images: Path, masks: Path) -> Path:
    """WebDataset: numbers of classes, whose names lie beside."""
    root = images.parent / "shards"
    root.mkdir()
    names = sorted({label for label, *_ in rows(images, masks)})
    (root / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    with tarfile.open(root / "train-000.tar", "w") as tar:
        for number, (label, _, image, mask) in enumerate(rows(images, masks)):
            members = {"png": image.read_bytes(), "cls": str(names.index(label)).encode(),
                       "mask.png": mask.read_bytes()}  # fmt: skip
            for ending, content in members.items():
                member = tarfile.TarInfo(f"{number:05d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return root / "train-000.tar"


def data_set(images: Path, masks: Path) -> object:
    datasets = pytest.importorskip("datasets")
    found = rows(images, masks)
    names = sorted({label for label, *_ in found})
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image(),
                                  "label": datasets.ClassLabel(names=names)})  # fmt: skip
    content = {
        "image": [{"bytes": f.read_bytes(), "path": None} for _, _, f, _ in found],
        "mask": [{"bytes": m.read_bytes(), "path": None} for *_, m in found],
        "label": [names.index(label) for label, *_ in found],
    }
    return datasets.Dataset.from_dict(content, features=features)


def as_saved(images: Path, masks: Path) -> Path:
    made = data_set(images, masks)
    made.save_to_disk(str(images.parent / "saved"))  # type: ignore[attr-defined]
    return images.parent / "saved"


def as_parquet(images: Path, masks: Path) -> Path:
    made = data_set(images, masks)
    made.to_parquet(str(images.parent / "all.parquet"))  # type: ignore[attr-defined]
    return images.parent / "all.parquet"


KINDS: dict[str, Make] = {
    "csv": as_csv,
    "tsv": as_tsv,
    "metadata": as_metadata,
    "tar": as_tar,
    "saved": as_saved,
    "parquet": as_parquet,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_images_and_masks_that_went_in(
    kind: str, tmp_path: Path, tiny: Build
) -> None:
    images, masks = make_images(tmp_path / "data", count=3)
    found = opened(KINDS[kind](images, masks))
    assert found.masks is not None
    now = scan(found.images, tiny(), masks=found.masks)
    before = scan(images, tiny(), masks=masks)
    assert [s.label for s in now] == [s.label for s in before]
    for one, other in zip(now, before, strict=True):
        assert one.mask is not None
        assert other.mask is not None
        np.testing.assert_array_equal(pixels(one.image), pixels(other.image))
        np.testing.assert_array_equal(Image.open(one.mask), Image.open(other.mask))


def test_a_source_is_unpacked_once_and_again_when_it_changed(tmp_path: Path, cache: Path) -> None:
    images, masks = make_images(tmp_path / "data", count=2)
    file = as_csv(images, masks)
    first = opened(file).images
    assert opened(file).images == first
    assert len(list((cache / "sources").iterdir())) == 1  # and nothing half-made beside it
    text = file.read_text().splitlines()
    file.write_text("\n".join(text[:-1]))
    second = opened(file).images
    assert second != first
    assert len(list(second.glob("*/*"))) == len(list(first.glob("*/*"))) - 1
    gradient().save(images / "ant" / "0.png")  # another picture under the old name
    np.testing.assert_array_equal(
        pixels(opened(file).images / "ant" / "0.png"), pixels(images / "ant" / "0.png")
    )


def test_split_folders_are_recognised_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("train", "valid", "test"):
        make_images(tmp_path / part, count=1)
        (tmp_path / part / "images").rename(tmp_path / f"{part}-images")
    root = tmp_path / "root"
    root.mkdir()
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}-images").rename(root / part)
    with caplog.at_level(logging.INFO, "refocus"):
        assert opened(root).images == root / "train"
    assert "holds test, train, valid; train is read" in caplog.text
    assert opened(root, part="test").images == root / "test"
    assert opened(f"{root}?split=val").images == root / "valid"
    assert set(opened(root).parts) == {"train", "val", "test"}
    with pytest.raises(InputError, match=r"has no split 'extra'; it has test, train, valid"):
        opened(f"{root}?split=extra")


def test_classes_that_are_called_train_and_test_are_no_splits(tmp_path: Path) -> None:
    images, _ = make_images(tmp_path, ["train", "test"], count=1)
    assert opened(images).images == images


def test_a_split_column_and_a_dataset_dict_choose_as_folders_do(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    images, masks = make_images(tmp_path / "data", ["ant", "bee"], count=2)
    made = data_set(images, masks)
    both = datasets.DatasetDict({"train": made, "test": made.select([0])})  # type: ignore[attr-defined]
    both.save_to_disk(str(tmp_path / "both"))
    assert len(list(opened(tmp_path / "both").images.glob("*/*"))) == 4
    assert len(list(opened(tmp_path / "both", part="test").images.glob("*/*"))) == 1
    table = images.parent / "split.csv"
    table.write_text("path,label,split\nimages/ant/0.png,ant,train\nimages/bee/0.png,bee,val\n")
    assert [f.parent.name for f in opened(table).images.glob("*/*")] == ["ant"]
    assert [f.parent.name for f in opened(f"{table}?split=val").images.glob("*/*")] == ["bee"]


def test_a_data_set_of_the_hub_is_named_by_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    images, masks = make_images(tmp_path / "data", count=1)
    asked: list[tuple[object, ...]] = []

    def stand_in(*arguments: object) -> object:
        asked.append(arguments)
        return datasets.DatasetDict({"validation": data_set(images, masks)})

    monkeypatch.setattr(datasets, "load_dataset", stand_in)
    found = opened("hf-data:people/pets?config=small")
    assert asked == [("people/pets", "small")]
    assert sorted(f.parent.name for f in found.images.glob("*/*")) == ["ant", "bee", "cat", "dog"]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(InputError, match=r"images hf-data:a/b: cannot be read .*gone"):
        opened("hf-data:a/b")


def test_coco_and_voc_label_an_image_by_its_only_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, _ = make_images(tmp_path / "data", ["ant", "bee"], count=2)
    root = tmp_path / "coco"
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    names = {1: ("ant", [7]), 2: ("bee", [9, 9]), 3: ("ant", [7, 9]), 4: ("bee", [])}
    content: dict[str, list[dict[str, object]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 7, "name": "ant"}, {"id": 9, "name": "bee"}],
    }
    for key, (label, found) in names.items():
        shutil.copy(images / label / f"{(key - 1) // 2}.png", root / "val2017" / f"{key}.png")
        content["images"].append({"id": key, "file_name": f"{key}.png"})
        content["annotations"] += [{"image_id": key, "category_id": c} for c in found]
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(content))
    with caplog.at_level(logging.INFO, "refocus"):
        read = opened(file).images
    listed = sorted(f.relative_to(read).as_posix() for f in read.glob("*/*"))
    assert listed == ["ant/1.png", "bee/2.png"]
    assert "1 images of several classes, 1 images without an object" in caplog.text

    voc = tmp_path / "voc"
    (voc / "Annotations").mkdir(parents=True)
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    shutil.copytree(root / "val2017", voc / "JPEGImages")
    for key, (_, found) in names.items():
        objects = "".join(f"<object><name>{content['categories'][c == 9]['name']}</name></object>"
                          for c in found)  # fmt: skip
        text = f"<annotation><filename>{key}.png</filename>{objects}</annotation>"
        (voc / "Annotations" / f"{key}.xml").write_text(text)
    (voc / "ImageSets" / "Main" / "train.txt").write_text("2\n3\n")
    read = opened(voc).images
    assert sorted(f.relative_to(read).as_posix() for f in read.glob("*/*")) == listed
    assert [f.name for f in opened(f"{voc}?split=train").images.glob("*/*")] == ["2.png"]


def as_voc(root: Path, names: Sequence[str], images: Sequence[str]) -> Path:
    """Annotations of one cat each, and images for some of them."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name in names:
        text = f"<annotation><filename>{name}.png</filename><object><name>cat</name></object>"
        (root / "Annotations" / f"{name}.xml").write_text(f"{text}</annotation>")
    for name in images:
        Image.new("RGB", (40, 36)).save(root / "JPEGImages" / f"{name}.png")
    return root


def test_an_image_that_is_added_to_a_voc_set_is_read(tmp_path: Path) -> None:
    root = as_voc(tmp_path / "voc", ["a", "b"], ["a"])
    assert listed(opened(root).images) == ["cat/a.png"]
    shutil.copy(root / "JPEGImages" / "a.png", root / "JPEGImages" / "b.png")
    assert listed(opened(root).images) == ["cat/a.png", "cat/b.png"]


def test_names_of_a_voc_list_may_have_blanks_and_are_counted_where_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = as_voc(tmp_path / "voc", ["a", "a b", "c", "d"], ["a", "a b", "c", "d"])
    (root / "ImageSets" / "Main" / "train.txt").write_text("a b\nc  1\nd -1\na z\ne\ne 1\n")
    with caplog.at_level(logging.INFO, "refocus"):
        read = opened(f"{root}?split=train").images
    assert listed(read) == ["cat/a b.png", "cat/c.png", "cat/d.png"]
    assert "2 names of the list without an annotation" in caplog.text


def table(tmp_path: Path, text: str) -> Path:
    gradient().save(tmp_path / "a.png")
    file = tmp_path / "table.csv"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\nb.png,ant\n", r"names b\.png, and .* is no file"),
        ("path,colour\na.png,ant\n", r"has no column label; it has path, colour"),
        ("path,label,class\na.png,x,y\n", r"label and class could both be the label"),
        ("path,label\na.png,../evil\n", r"'\.\./evil' cannot be the name of a folder"),
        ("path,label\na.png,..\n", r"'\.\.' cannot be the name of a folder"),
        ("path,label\na.png,.git\n", r"'\.git' cannot be the name of a folder"),
        ("path,label\na.png,\n", r"line 2: has no value for label"),
        ("path,label\n~nobody-is-called-so/a.png,ant\n", r"names ~nobody.*is no file"),
        (f"path,label\n{'x' * 300}.png,ant\n", r"names x+\.png, and .* is no file"),
        ("path,label\na.png,ant\na.png,bee\n", r"a\.png with the label 'ant' and .* 'bee'"),
        ("path,label\na.png,ant\n./a.png,bee\n", r"with the label 'ant' and again with 'bee'"),
        ("path,label,group\na.png,ant,x\na.png,ant,y\n", r"the group 'x' and again with 'y'"),
        ("path,label,mask\na.png,x,a.png\na.png,x,table.csv\n", r"a\.png' and again with .*table"),
        ("path,label,mask\na.png,x,\na.png,x,a.png\n", r"the mask '' and again with '.*a\.png'"),
        ("img,image_path,label\na.png,a.png,x\n", r"image_path and img could both be the image"),
        ("path,label\na.png,crane, bird\n", r"line 2: has more values than the head has columns"),
    ],
)
def test_a_table_that_cannot_be_read_in_one_way_is_refused_and_leaves_nothing(
    text: str, said: str, tmp_path: Path, cache: Path
) -> None:
    with pytest.raises(InputError, match=said):
        opened(table(tmp_path, text))
    assert not list(cache.rglob("*.png"))


def test_an_image_that_is_listed_twice_counts_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = table(tmp_path, "path,label\na.png,ant\na.png,ant\n")
    with caplog.at_level(logging.INFO, "refocus"):
        assert len(list(opened(file).images.glob("*/*"))) == 1
    assert "1 images of 1 classes; left out: 1 listed more than once" in caplog.text


def test_what_an_earlier_version_read_by_other_rules_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = table(tmp_path, "path,label\na.png,ant\n")
    first = opened(file).images
    assert opened(file).images == first
    monkeypatch.setattr(unpack, "_RULES", unpack._RULES - 1)
    assert opened(file).images != first


@pytest.mark.parametrize(
    ("splits", "found"),
    [
        (("0", "1"), None),
        (("fold-a", "fold-b"), None),
        (("", "x"), None),
        (("all", "all"), ["a.png", "b.png"]),
        (("train", "extra"), ["a.png"]),
        (("extra", "TRAIN"), ["b.png"]),
    ],
)
def test_splits_of_other_names_are_not_chosen_from(
    splits: tuple[str, str], found: list[str] | None, tmp_path: Path
) -> None:
    gradient().save(tmp_path / "b.png")
    rows = [f"{name}.png,ant,{split}" for name, split in zip("ab", splits, strict=True)]
    file = table(tmp_path, "\n".join(["path,label,split", *rows]))
    if found is None:
        with pytest.raises(InputError, match=r"none is called train, val or test; add \?split="):
            opened(file)
        assert [f.name for f in opened(f"{file}?split={splits[1]}").images.glob("*/*")] == ["b.png"]
    else:
        assert sorted(f.name for f in opened(file).images.glob("*/*")) == found


@pytest.mark.parametrize(
    ("lines", "masks", "said"),
    [
        ((1, 2), None, "label 2, but there are 2 class names"),
        (("²", "ant"), 0, ""),
        (("ant", "bee"), 1, ""),
        ((["ant"], "bee"), None, r"label is \['ant'\]; must be a text or a number"),
        (({"a": 1}, "bee"), None, "must be a text or a number"),
        ((1.0, "bee"), 1, ""),
        ((2.0, "bee"), None, "label 2, but there are 2 class names"),
    ],
)
def test_lines_of_json_are_read_whole(
    lines: tuple[object, object], masks: int | None, said: str, tmp_path: Path
) -> None:
    """A key may stand in a later line alone."""
    rows: list[dict[str, object]] = [{"path": "a.png", "label": lines[0]},
                                     {"path": "b.png", "label": lines[1]}]  # fmt: skip
    if masks:
        rows[1]["mask"] = "a.png"
    gradient().save(tmp_path / "b.png")
    gradient().save(tmp_path / "a.png")
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    if said:
        with pytest.raises(InputError, match=said):
            opened(tmp_path / "t.jsonl")
    else:
        assert (opened(tmp_path / "t.jsonl").masks is not None) == bool(masks)


@pytest.mark.parametrize(
    ("classes", "found"),
    [("ant\nbee\n\n", "bee"), ("\nbee\nant", "bee"), ("ant\n\nbee", None)],
)
def test_a_number_means_its_line_of_the_class_names(
    classes: str, found: str | None, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text(classes)
    file = table(tmp_path, "path,label\na.png,1\n")
    if found is None:
        with pytest.raises(InputError, match="label 1, but that line of the class names is blank"):
            opened(file)
    else:
        assert [p.name for p in opened(file).images.iterdir()] == [found]


@pytest.mark.parametrize("kind", ["csv", "tar", "parquet"])
@pytest.mark.parametrize(
    ("labels", "found", "lost"),
    [
        (["-1", "1", "0"], ["ant/c.png", "bee/b.png"], 1),
        (["0.0", "1.", "-1.0"], ["ant/a.png", "bee/b.png"], 1),
        (["0", "2.0", "0.5"], ["0.5/c.png", "2.0/b.png", "ant/a.png"], 0),  # names of classes
    ],
)
def test_numbers_as_tools_write_them(
    labels: list[str], found: list[str], lost: int, kind: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "refocus")
    (tmp_path / "classes.txt").write_text("ant\nbee\n2.0\n")
    names = ["a.png", "b.png", "c.png"]
    for at, name in enumerate(names):
        Image.new("RGB", (9, 9), (at, 0, 0)).save(tmp_path / name)
    if kind == "csv":
        lines = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
        file = table(tmp_path, "\n".join(["path,label", *lines]))
    elif kind == "tar":
        file = tmp_path / "a.tar"
        with tarfile.open(file, "w") as tar:
            for name, label in zip(names, labels, strict=True):
                (tmp_path / "label").write_text(label)
                tar.add(tmp_path / name, name)
                tar.add(tmp_path / "label", f"{Path(name).stem}.cls")
    else:
        file = tmp_path / "a.parquet"
        images = [{"bytes": None, "path": str(tmp_path / name)} for name in names]
        data(tmp_path / "x", image=images, label=labels).to_parquet(file)  # type: ignore[attr-defined]
    assert listed(opened(file).images) == found
    assert ("left out: 1" in caplog.text) == bool(lost)


def test_a_mask_is_known_by_its_content_where_its_name_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "refocus")
    file = table(tmp_path, "path,label,mask\na.png,ant,m\nb.png,bee,m.npy\n")
    gradient().save(tmp_path / "b.png")
    Image.new("L", (9, 9), 255).save(tmp_path / "m", format="PNG")
    (tmp_path / "m.npy").write_bytes(b"0")
    found = opened(file)
    assert found.masks is not None
    assert listed(found.masks) == ["ant/a.png"]
    assert "1 masks that are not images" in caplog.text


def data(folder: Path, *, classes: tuple[str, ...] = (), **columns: list[object]) -> object:
    """A data set of `datasets`; `image` is made of paths, the last column of numbers of classes."""
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict(columns)
    if "image" in columns:
        made = made.cast_column("image", datasets.Image())
    if classes:
        made = made.cast_column(list(columns)[-1], datasets.ClassLabel(names=list(classes)))
    shutil.rmtree(folder, ignore_errors=True)
    made.save_to_disk(str(folder))
    return made


def pair_of(tmp_path: Path) -> list[object]:
    found = [tmp_path / f"{i}.png" for i in range(2)]
    for i, file in enumerate(found):
        Image.new("RGB", (40, 36), (i, 0, 0)).save(file)
    return [str(file) for file in found]


def listed(images: Path) -> list[str]:
    return sorted(file.relative_to(images).as_posix() for file in images.glob("*/*"))


def test_a_saved_set_that_was_saved_anew_is_read_anew(tmp_path: Path) -> None:
    files, folder = pair_of(tmp_path), tmp_path / "set"
    for labels, found in (
        ([0, 1], ["ant/0.png", "bee/1.png"]),
        ([1, 0], ["ant/1.png", "bee/0.png"]),
    ):
        data(folder, classes=("ant", "bee"), image=files, label=labels)
        assert listed(opened(folder).images) == found


def test_a_group_that_is_no_number_is_none(tmp_path: Path) -> None:
    groups = [1.0, float("nan")]
    data(tmp_path / "set", classes=("ant",), image=pair_of(tmp_path), group=groups, label=[0, 0])
    found = opened(tmp_path / "set").groups
    assert found is not None
    assert found.read_text().split() == ["image,group", "ant/0.png,1"]


@pytest.mark.parametrize("kind", ["csv", "set"])
def test_sources_of_one_relative_name_in_two_folders_are_two(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("a", "b"):
        (root := tmp_path / name).mkdir()
        monkeypatch.chdir(root)
        Image.new("RGB", (40, 36)).save("0.png")
        os.utime("0.png", (1e9, 1e9))
        if kind == "csv":
            Path("s").write_text("path,label\n0.png,x\n")
            Path("s").rename("s.csv")
        else:
            data(Path("s"), image=[str(root / "0.png")], label=["x"])
            for file in root.rglob("*.arrow"):
                os.utime(file, (1e9, 1e9))
        found.append(opened("s.csv" if kind == "csv" else "s").images)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("columns", "asked", "found"),
    [
        ({"label": ["x", "y"], "sex": [0, 1]}, "", "label and sex could both be the label"),
        ({"label": ["x", "y"], "sex": [0, 1]}, "?label=label", ["x/0.png", "y/1.png"]),
        ({"label": ["x", "y"], "sex": [0, 1]}, "?label=sex", ["m/0.png", "w/1.png"]),
        ({"species": [0, 1]}, "", ["m/0.png", "w/1.png"]),
        ({"class_name": ["x", "y"], "label": [0, 1]}, "", ["m/0.png", "w/1.png"]),
    ],
)
def test_a_class_label_is_not_taken_before_a_text_called_label(
    columns: dict[str, list[object]], asked: str, found: str | list[str], tmp_path: Path
) -> None:
    data(tmp_path / "set", classes=("m", "w"), image=pair_of(tmp_path), **columns)
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            opened(f"{tmp_path / 'set'}{asked}")
    else:
        assert listed(opened(f"{tmp_path / 'set'}{asked}").images) == found


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([1, 0], ["ant/1.png", "zebra/0.png"]),  # lines of classes.txt
        ([1.0, float("nan")], ["zebra/0.png"]),
        ([[0, 1], [1, 0]], r"label is \[0, 1\]; must be a text or a number"),
    ],
)
def test_plain_labels_of_a_saved_set(
    labels: list[object], found: str | list[str], tmp_path: Path
) -> None:
    data(tmp_path / "set", image=pair_of(tmp_path), label=labels)
    (tmp_path / "set" / "classes.txt").write_text("ant\nzebra\n")
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            opened(tmp_path / "set")
    else:
        assert listed(opened(tmp_path / "set").images) == found


@pytest.mark.parametrize("gone", [False, True])
def test_paths_of_a_parquet_file_are_files_beside_it(gone: bool, tmp_path: Path) -> None:
    made = data(tmp_path / "set", label=["x", "y"], file_name=["0.png", "1.png"])
    made.to_parquet(str(tmp_path / "t.parquet"))  # type: ignore[attr-defined]
    pair_of(tmp_path)
    if gone:
        (tmp_path / "1.png").unlink()
        with pytest.raises(InputError, match=r"t\.parquet: names 1\.png, which is no file"):
            opened(tmp_path / "t.parquet")
    else:
        assert listed(opened(tmp_path / "t.parquet").images) == ["x/0.png", "y/1.png"]


@pytest.mark.parametrize(
    ("name", "lines", "found"),
    [
        ("labels.txt", "2\n0\n1", "0"),  # of images, as their repetition or numbers say
        ("labels.txt", "ant\nbee\nant", "0"),
        ("labels.txt", "zebra\nbee", "zebra"),
        ("classes.txt", "10\n20", "10"),
        ("classes.txt", "ant\nbee\nant", "has the name 'ant' twice"),
    ],
)
def test_a_list_of_labels_is_not_taken_for_names_of_classes(
    name: str, lines: str, found: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(lines)
    file = table(tmp_path, "path,label\na.png,0\n")
    if " " in found:
        with pytest.raises(InputError, match=found):
            opened(file)
    else:
        assert listed(opened(file).images) == [f"{found}/a.png"]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        (["a.png", "a.webp", "a.cls"], r"a\.png and a\.webp; must hold one image"),
        (["a.png", "a.mask.png", "a.seg.png"], "one mask at most, for each key"),
        (["c/a.png", "c/b.png", "c/a.cls"], "members of c/a lie apart"),
        (["a.png", "a.json"], ["cat/b.png"]),  # a label of null is none
    ],
)
def test_a_sample_of_an_archive_is_one_image_with_one_label(
    members: list[str], found: str | list[str], tmp_path: Path
) -> None:
    contents = {".json": b'{"label": null}', ".cls": b"cat", ".png": b"", ".webp": b""}
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in (*members, "b.png", "b.cls"):
            content = contents[Path(name).suffix]
            (member := tarfile.TarInfo(name)).size = len(content)
            tar.addfile(member, io.BytesIO(content))
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            opened(tmp_path / "a.tar")
    else:
        assert listed(opened(tmp_path / "a.tar").images) == found


def packed(tmp_path: Path, *names: str) -> Path:
    """An archive of images, or of labels where a name does not end as an image's."""
    gradient().save(tmp_path / "a.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in names:
            content = (tmp_path / "a.png").read_bytes() if name.endswith("png") else b"cat"
            (member := tarfile.TarInfo(name)).size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return tmp_path / "a.tar"


@pytest.mark.parametrize(
    ("members", "images", "masks"),
    [
        (["cat/I.2020.1.png", "cat/I.2020.2.png"], ["cat/I.2020.1.png", "cat/I.2020.2.png"], []),
        (["cat/I.1.png", "cat/J.png", "cat/I.2.png"], ["cat/I.1.png", "cat/I.2.png", "cat/J.png"],
         []),
        (["cat/a.png", "cat/a.B.png"], ["cat/a.B.png", "cat/a.png"], []),
        (["cat/a.png", "cat/a.mask.png"], ["cat/a.png"], ["cat/a.png"]),
        (["cat/a.1.png", "cat/a.1.seg.png", "cat/a.2.png"], ["cat/a.1.png", "cat/a.2.png"],
         ["cat/a.1.png"]),
        (["cat/a.png", "cat/a.mask_1.png"], ["cat/a.png"], []),
        (["a.1.cls", "a.1.png", "a.2.cls", "a.2.png"], ["cat/a.1.png", "cat/a.2.png"], []),
        (["a.left.png", "a.png", "a.txt"], ["cat/a.png"], []),  # a label: a sample of one image
    ],
)  # fmt: skip
def test_a_name_in_an_archive_may_hold_dots(
    members: list[str], images: list[str], masks: list[str], tmp_path: Path
) -> None:
    found = opened(packed(tmp_path, *members))
    assert listed(found.images) == images
    assert (listed(found.masks) if found.masks else []) == masks


@pytest.mark.parametrize(
    "members",
    [
        ["a.cls", "a.png", "b.png", "a.1.png"],
        ["c/a.1.png", "c/b.png", "c/a.1.png"],
        ["a.1.png", "b.png", "a.cls", "a.png"],
    ],
)
def test_members_of_a_name_with_dots_may_not_lie_apart(members: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"members of (c/)?a(\.1)? lie apart"):
        opened(packed(tmp_path, *members))


def test_every_image_of_a_sample_without_a_usable_one_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "refocus")
    opened(packed(tmp_path, "a.cls", "a.left.png", "a.right.png", "b.cls", "b.png"))
    assert "left out: 2 images not called KEY.EXT beside a label" in caplog.text


def parts(root: Path, *names: str) -> Path:
    """A root of splits, each with a picture of its own in cat/1.png."""
    for number, name in enumerate(names):
        (root / name / "cat").mkdir(parents=True)
        Image.new("RGB", (40, 36), (number, 0, 0)).save(root / name / "cat" / "1.png")
    lines = [f"{name}/cat/1.png,cat,{name}" for name in names]
    (root.parent / f"{root.name}.csv").write_text("path,label,split\n" + "\n".join(
        f"{root.name}/{line}" for line in lines))  # fmt: skip
    return root


@pytest.mark.parametrize(
    ("names", "asked", "part", "found"),
    [
        (("train", "eval", "test"), "?split=test", "train", "test"),
        (("train", "eval", "test"), "?split=eval", "train", "eval"),
        (("train", "dev", "val"), "?split=val", "train", "val"),
        (("train", "dev"), "?split=validation", "train", "dev"),
        (("train", "dev", "val"), "?split=valid", "train", "splits dev and val could both"),
        (("train", "eval", "test"), "", "test", "eval and test could both be meant by test; add"),
    ],
)
def test_a_split_is_the_one_of_its_name_and_never_one_of_two(
    names: tuple[str, ...], asked: str, part: str, found: str, tmp_path: Path
) -> None:
    root = parts(tmp_path / "root", *names)
    for given in (f"{root}{asked}", f"{root}.csv{asked}"):
        if " " in found:
            with pytest.raises(InputError, match=found):
                opened(given, part=part)
        else:
            read = next(opened(given, part=part).images.glob("*/*")).resolve()
            assert read.parent.parent.name == found


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("root/train", "split=test"),
        ("root/train", "label=x"),
        ("root", "config=x"),
        ("one.csv", "split=test"),
        ("one.csv", "config=x"),
        ("a.tar", "split=test"),
        ("train.tar", "split=test"),
        ("a.tar", "label=x"),
        ("c.json", "split=test"),
    ],
)
def test_a_key_that_says_nothing_to_a_source_is_refused(
    source: str, key: str, tmp_path: Path
) -> None:
    parts(tmp_path / "root", "train", "test")
    (tmp_path / "one.csv").write_text("path,label\nroot/train/cat/1.png,cat\n")
    for name in ("a.tar", "train.tar"):
        tarfile.open(tmp_path / name, "w").close()
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(InputError, match=rf"has no .*{key.partition('=')[2]}"):
        opened(f"{tmp_path / source}?{key}")


def test_archives_called_as_splits_are_splits(tmp_path: Path) -> None:
    root = parts(tmp_path / "root", "train", "test")
    (shards := tmp_path / "shards").mkdir()
    for name in ("train", "test"):
        with tarfile.open(shards / f"{name}-000.tar", "w") as tar:
            tar.add(root / name / "cat" / "1.png", f"cat/{name}.png")
    for given, found in ((shards, "train"), (f"{shards}?split=test", "test")):
        assert [f.stem for f in opened(given).images.glob("*/*")] == [found]


@pytest.mark.parametrize("label", [None, ".cls", ".json"])
def test_folders_of_splits_in_an_archive_are_splits(label: str | None, tmp_path: Path) -> None:
    root = parts(tmp_path / "data", "train", "test")
    content = {".cls": "cat", ".json": '{"label": "cat"}'}
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("train", "test"):
            folder = f"data/{name}" if label else f"data/{name}/cat"
            tar.add(root / name / "cat" / "1.png", f"{folder}/{name}.png")
            if label:
                (tmp_path / "label").write_text(content[label])
                tar.add(tmp_path / "label", f"{folder}/{name}{label}")
    for asked, found in (("", "train"), ("?split=test", "test")):
        read = opened(f"{tmp_path / 'a.tar'}{asked}")
        assert listed(read.images) == [f"cat/{found}.png"]
        assert (read.parts, read.split) == (("train", "test"), found)
    assert opened(tmp_path / "a.tar", part="test").split == "test"


@pytest.mark.parametrize("names", [("train/cat", "cat"), ("cat", "train/cat", "test/cat")])
def test_an_archive_of_splits_and_others_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    picture = parts(tmp_path / "data", "train") / "train" / "cat" / "1.png"
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in names:
            tar.add(picture, f"data/{name}/1.png")
    with pytest.raises(InputError, match="folders of splits, such as train, and others in none"):
        opened(tmp_path / "a.tar")


@pytest.mark.parametrize("text", ['{"label": 1, "score": NaN}', '{"label": cat}', "[" * 9999])
def test_a_label_of_an_archive_that_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    picture = parts(tmp_path / "data", "train") / "train" / "cat" / "1.png"
    (tmp_path / "label").write_text(text)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(picture, "0.png")
        tar.add(tmp_path / "label", "0.json")
    with pytest.raises(InputError, match=r"a\.tar: 0\.json: not JSON"):
        opened(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("images", "masks", "found"),
    [
        ("I?split=val", "M", "val"),
        ("I", "M", "train"),
        ("I/val", "M", "val"),
        ("I?split=val", "M.csv", "val"),
        ("I.csv?split=val", "M", "val"),
        ("I/val", "M?split=train", "train"),  # as it was said
        ("I/val", "M/train", "train"),
        ("I?split=test", "M", r"no split 'test', which the images are from \(it has train, val\)"),
        ("plain", "M", "has several splits"),
    ],
)
def test_masks_are_of_the_split_that_the_images_are_from(
    images: str, masks: str, found: str, tmp_path: Path
) -> None:
    parts(tmp_path / "I", "train", "val", "test")
    parts(tmp_path / "M", "train", "val")
    parts(tmp_path, "plain")
    (tmp_path / "M.csv").write_text("path,label,split,mask\n" + "\n".join(
        f"I/{s}/cat/1.png,cat,{s},M/{s}/cat/1.png" for s in ("train", "val")))  # fmt: skip
    given = (f"{tmp_path}/{images}", f"{tmp_path}/{masks}")
    if " " in found:
        with pytest.raises(InputError, match=found):
            opened_pair(*given)
        return
    read = opened_pair(*given).masks
    assert read is not None
    assert next(read.glob("*/*")).resolve().parent.parent.name == found


def numbered(tmp_path: Path, kind: str) -> Path:
    """Three images of the classes 0 to 2: zebra, ant, cat."""
    names = ["zebra", "ant", "cat"]
    for number in range(3):
        Image.new("RGB", (40, 36), (number, 0, 0)).save(tmp_path / f"{number}.png")
    if kind == "saved":
        datasets = pytest.importorskip("datasets")
        label = datasets.ClassLabel(names=names)
        features = datasets.Features({"image": datasets.Image(), "label": label})
        content = {"image": [str(tmp_path / f"{i}.png") for i in range(3)], "label": [0, 1, 2]}
        made = datasets.Dataset.from_dict(content, features=features)
        made.save_to_disk(str(tmp_path / "saved"))
        return tmp_path / "saved"
    (tmp_path / "classes.txt").write_text("\n".join(names))
    if kind == "tar":
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for i in range(3):
                tar.add(tmp_path / f"{i}.png", f"{i}.png")
                (tmp_path / "label").write_text(str(i))
                tar.add(tmp_path / "label", f"{i}.cls")
        return tmp_path / "a.tar"
    labels = names if kind == "csv, names" else range(3)
    lines = [f"{i}.png,{label}" for i, label in enumerate(labels)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines]))
    return tmp_path / "t.csv"


@pytest.mark.parametrize("kind", ["csv", "csv, names", "tar", "saved"])
def test_numbers_of_classes_are_the_outputs_of_a_model_without_names(
    kind: str, tmp_path: Path, tiny: Build, caplog: pytest.LogCaptureFixture
) -> None:
    images, model = opened(numbered(tmp_path, kind)).images, tiny(num_classes=3)
    found = {s.image.parent.name: s.label for s in scan(images, model)}
    assert found == {"zebra": 0, "ant": 1, "cat": 2}
    assert "3 classes of" in caplog.text
    assert "(zebra, ant, cat)" in caplog.text
    with pytest.raises(InputError, match="numbers 3 classes, not in alphabetical order"):
        scan(images, tiny(num_classes=2))


@pytest.mark.parametrize("name", ["x" * 300, "a\x00b.png", "gone.png"])
def test_a_coco_file_names_images_that_are_there(name: str, tmp_path: Path) -> None:
    content = {"images": [{"id": 1, "file_name": name}], "categories": [], "annotations": []}
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="its images are not found"):
        opened(tmp_path / "c.json")


@pytest.mark.parametrize("part", ["images", "categories"])
def test_a_coco_id_that_stands_twice_is_refused(part: str, tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 7, "name": "ant"}],
        "annotations": [{"image_id": 1, "category_id": 7}],
    }
    content[part].append({**content[part][0], "name": "bee", "file_name": "b.png"})
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"two of its {part} have the id"):
        opened(tmp_path / "c.json")


def test_a_coco_file_that_lists_an_image_twice_with_other_objects_is_refused(
    tmp_path: Path,
) -> None:
    gradient().save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}],
        "categories": [{"id": 7, "name": "ant"}],
        "annotations": [{"image_id": 1, "category_id": 7}],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"lists a\.png under the ids 1 and 2 with other objects"):
        opened(tmp_path / "c.json")


def test_a_column_may_be_named(tmp_path: Path) -> None:
    file = table(tmp_path, "path,label,class\na.png,x,y\n")
    assert [p.name for p in opened(f"{file}?label=class").images.iterdir()] == ["y"]


def test_images_of_one_name_keep_apart(tmp_path: Path) -> None:
    for folder in "xy":
        (tmp_path / folder).mkdir()
        gradient().save(tmp_path / folder / "a.png")
    file = table(tmp_path, "path,label\nx/a.png,ant\ny/a.png,ant\n")
    assert sorted(p.name for p in opened(file).images.glob("ant/*")) == ["a-2.png", "a.png"]


def test_files_of_unknown_kind_and_masks_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"a\.zip: a file of unknown kind; must be an Image"):
        opened(tmp_path / "a.zip")
    with pytest.raises(InputError, match=r"b\.csv: no such file"):
        opened(tmp_path / "b.csv")
    with pytest.raises(InputError, match=r"masks .*table\.csv: has no masks"):
        opened_masks(table(tmp_path, "path,label\na.png,ant\n"))


def test_check_says_how_a_table_was_understood(tmp_path: Path, tiny: Build) -> None:
    images, masks = make_images(tmp_path / "data", count=2)
    found = check(tiny(), as_csv(images, masks))
    assert next((c.folder, c.images, c.masks) for c in found.classes) == ("ant", 2, 2)
    assert any("a table, 8 images of 4 classes, 8 with masks" in n for n in found.notices)


@pytest.mark.slow
def test_tune_takes_images_and_masks_of_a_table_and_can_be_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    images, masks = make_images(tmp_path / "data")
    file, out = as_csv(images, masks), tmp_path / "run"
    how = ["--epochs", 1, "--shots", 2, "--lr", "1e-3", "--no-do-no-harm"]
    assert (
        run(monkeypatch, "tune", "--model", model_folder, "--images", file, "--out", out, *how) == 0
    )
    chosen = json.loads((out / "selection.json").read_text())
    assert {Path(row["image"]).parent.name for row in chosen["train"]} == {"ant", "bee"}
    assert run(monkeypatch, "report", out, "--most", 4) == 0


def test_groups_of_a_table_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    images, masks = make_images(tmp_path / "data")
    arguments = ["--on", f"mine={as_csv(images, masks)}", "--out", tmp_path / "out"]
    assert run(monkeypatch, "evaluate", "--model", model_folder, *arguments) == 0
    text = (tmp_path / "out" / "results.json").read_text()
    assert '"left"' in text
    assert '"right"' in text


def test_a_pair_takes_named_masks_before_its_own(tmp_path: Path) -> None:
    images, masks = make_images(tmp_path / "data", count=1)
    file = as_csv(images, masks)
    assert opened_pair(file, masks).masks == masks
    assert opened_pair(file, None).masks == opened(file).masks
    assert opened_pair(images, file).masks == opened(file).masks
    assert opened_pair(images, None).masks is None


def test_an_audit_under_torchrun_takes_the_masks_that_images_come_with(
    tmp_path: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, masks = make_images(tmp_path / "data", count=1)
    monkeypatch.setenv("WORLD_SIZE", "2")

    def shared(*_: object, **__: object) -> None:
        raise InputError("goes on")

    monkeypatch.setattr("refocus.processes.shared", shared)
    cases = ((images, "--masks: missing; under torchrun"), (as_csv(images, masks), "goes on"))
    for given, said in cases:
        asked = ("--model", model_folder, "--images", given, "--out", tmp_path / "out")
        assert run(monkeypatch, "audit", *asked, "--device", "cpu") == 2
        assert said in capsys.readouterr().err
