"""The data of a study: a user's own folder is split."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image

from refocus import InputError
from refocus.data.folders import folder_samples
from refocus.studies import datasets, jobs, start
from refocus.studies.settings import StudySettings
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


def test_one_image_folder_takes_masks_of_every_format_and_name(tmp_path: Path) -> None:
    """As all other commands do: a Mac writes an accent as a character of its own."""
    images, masks = make_images(tmp_path / "flat", ["ant"], count=8)
    for number, ending in enumerate((".bmp", ".PNG", ".tif", ".gif")):
        mask = masks / "ant" / f"{number}.png"
        Image.open(mask).save(mask.with_suffix(".bmp" if ending == ".bmp" else ".tmp"), "BMP")
        mask.with_suffix(".bmp" if ending == ".bmp" else ".tmp").rename(mask.with_suffix(ending))
        mask.unlink()
    for folder, form in ((images, "NFC"), (masks, "NFD")):
        file = folder / "ant" / "4.png"
        file.rename(file.with_name(unicodedata.normalize(form, "4é.png")))
    datasets._split(images, {"annotated": masks}, tmp_path / "out")
    assert len(list((tmp_path / "out" / "annotated").glob("*/ant/*"))) == 8


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


@pytest.mark.parametrize("there", ["images", "masks"])
def test_validation_images_need_masks(place: Path, tmp_path: Path, there: str) -> None:
    for kind in ("images", "masks"):
        shutil.copytree(place / kind, tmp_path / kind)
    shutil.copytree(place / there / "test", tmp_path / there / "val")
    other = "masks" if there == "images" else "images"
    said = rf"on .*/{there}/val is there and .*/{other}/val is not; validation needs both"
    with pytest.raises(InputError, match=said):
        datasets.check_own(
            tmp_path / "images", loading.load(place / "model"), {"annotated": tmp_path / "masks"}
        )


def test_validation_images_of_a_file_need_masks(toml: Path) -> None:
    text = toml.read_text()
    for one, other in (("val", "val_masks"), ("val_masks", "val")):
        toml.write_text(text.replace("[suites]", f'{one} = "nowhere"\n[suites]'))
        with pytest.raises(InputError, match=rf"\[train\] names {one} without {other}; valid"):
            datasets.read_toml(toml)


def test_a_test_image_that_cannot_be_shifted_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, masks = make_images(tmp_path / "flat", ["ant", "bee"], count=4)
    (images / "bee" / "2.png").write_bytes(b"nothing")
    samples = folder_samples(images, masks, mask_polarity="keep")
    datasets._write_shift(samples, tmp_path / "shifts", "mixed-rand", 0)
    assert len(list((tmp_path / "shifts" / "mixed-rand").glob("*/*"))) == 7
    assert "1 images could not be made of the test images, mixed-rand/bee/2.png" in caplog.text


def _tuned_on(root: Path, model: Path, images: list[Path]) -> Path:
    """A model in the folder of a run that was trained on some images."""
    shutil.copytree(model, root / "model")
    rows = [{"image": str(file), "label": 0} for file in images]
    (root / "selection.json").write_text(json.dumps({"train": rows}))
    return root / "model"


def _settings(images: Path, masks: Path, model: Path) -> StudySettings:
    return StudySettings(on=str(images), model=(str(model),), masks=str(masks), device="cpu")


def test_images_that_the_model_was_tuned_on_are_in_no_half(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = make_images(tmp_path / "flat", count=8)
    used = [images / "ant" / "1.png", images / "bee" / "3.png"]
    model = _tuned_on(tmp_path / "run", place / "model", used)
    for folder in (images, masks):
        shutil.copy(folder / "ant" / "1.png", folder / "ant" / "copy.png")
    settings = _settings(images, masks, model)
    monkeypatch.setattr(start, "check", lambda _order: None)
    monkeypatch.setattr(start, "conduct", lambda order, _place, **_: order)
    order = start.study("table3", tmp_path / "out", settings, progress=False)
    halves = {file.resolve() for file in (tmp_path / "out/split/images").glob("*/*/*")}
    assert len(halves) == 4 * 8 - len(used)
    assert not halves & {*used, images / "ant" / "copy.png"}
    assert "tuned on these images or on copies of them: 3 of 33 in" in caplog.text
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["left_out"] == 3
    assert order is not None
    used += sorted(images.glob("cat/*"))[1:]
    with pytest.raises(InputError, match="cat: needs two different images or more, beside those"):
        datasets._check_one_folder(images, torch.nn.Identity(), {}, "ask", frozenset(used))


def test_a_test_folder_is_asked_without_what_was_trained_on(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither images of an earlier run nor copies of those in train/."""
    for kind in ("images", "masks"):
        shutil.copytree(place / kind, tmp_path / kind)
        shutil.copy(
            tmp_path / kind / "train/ant/0.png", tmp_path / kind / "test/ant/copy_of_train.png"
        )
    images, masks = tmp_path / "images", {"annotated": tmp_path / "masks"}
    used = images / "test" / "bee" / "0.png"
    model = _tuned_on(tmp_path / "run", place / "model", [used])
    seen = datasets.seen_images(images, [str(model)])
    assert {file.name for file in seen} == {"copy_of_train.png", "0.png"}
    assert "copies of them: 1 of 13 in" in caplog.text
    assert "copies of images in train/: 1 of 13 in" in caplog.text
    network = loading.load(model)
    datasets.check_own(images, network, masks, seen=seen)
    ground = datasets.own(
        images,
        ({"model": str(model)}, network),
        masks,
        tmp_path / "out",
        most=4,
        seed=0,
        kinds=("mixed-rand",),
    )
    assert len(list(ground.suites["mixed-rand"].glob("*/*"))) == 11
    (tests,) = ground.tests("natural", network).values()
    measured = {s.image for s in tests.samples}
    assert len(measured) == 11
    assert not measured & seen
    assert {s.image for s in jobs.masked_tests(ground, network)} == measured
    every = frozenset(images.glob("test/*/*"))
    with pytest.raises(InputError, match=r"test: a model was trained on each of its 13 images"):
        datasets.check_own(images, network, masks, seen=every)
