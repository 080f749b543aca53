"""What a listing takes and what it leaves out, and that it says so once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus.data import listing as listings
from refocus.data.folders import class_folders, image_files, scan
from refocus.data.images import read_image
from refocus.errors import InputError
from refocus.masks.joins import files_below
from tests.makers import Build, gradient

ENDINGS = [".ppm", ".pgm", ".jfif", ".avif", ".jp2", ".JPG", ".Png", ".webp", ".tif", ".jpe"]


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        gradient().save(root / name, "PNG")
    return root


@pytest.mark.parametrize("ending", ENDINGS)
def test_images_are_taken_by_any_ending_that_other_loaders_take(
    tmp_path: Path, ending: str
) -> None:
    folder(tmp_path, f"a/0{ending}")
    assert [f.name for f in class_folders(tmp_path, "images")["a"]] == [f"0{ending}"]


HIDDEN = [
    "i/._0.png", "i/a/._0.png", "i/.DS_Store", "i/a/.ipynb_checkpoints/0.png",
    "i/__MACOSX/0.png", "i/@eaDir/0.png", "i/a/@eaDir/0.png", "i/Thumbs.db", "i/a/desktop.ini",
    "i/#recycle/0.png",
]  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_what_systems_leave_in_folders_is_passed_over(
    tiny: Build, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder(tmp_path, "i/a/0.png", "i/b/0.png", "m/a/0.png", "m/b/0.png")
    for kind in ("i", "m"):
        other = tmp_path / kind / name.partition("/")[2]
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(b"\0\5\x16\7")
    (tmp_path / "m" / "a" / "0.png").write_bytes((tmp_path / "i" / "a" / "0.png").read_bytes())
    with caplog.at_level(logging.INFO, "refocus"):
        folders = class_folders(tmp_path / "i", "images")
        assert list(files_below(tmp_path / "m", (".png",))) == ["a/0.png", "b/0.png"]
    assert {k: [f.name for f in v] for k, v in folders.items()} == {"a": ["0.png"], "b": ["0.png"]}
    assert not caplog.text


def pipe(path: Path) -> None:
    os.mkfifo(path)


STRANGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pipe": (pipe, "1 not regular files"),
    "a link to a device": (lambda p: p.symlink_to("/dev/zero"), "1 broken links|1 not regular"),
    "a link to itself": (lambda p: p.symlink_to(p), "1 broken links"),
    "a dangling link": (lambda p: p.symlink_to("/nowhere/x.png"), "1 broken links"),
    "another file": (lambda p: p.with_suffix(".txt").touch(), "1 .txt"),
    "no ending": (lambda p: p.with_suffix("").touch(), "1 without extension"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_left_out_is_counted_by_reason(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, reason = STRANGE[name]
    folder(tmp_path, "a/0.png", "b/0.png")
    make(tmp_path / "a" / "z.png")
    with caplog.at_level(logging.INFO, "refocus"):
        assert len(image_files(tmp_path)) == 2
    (record,) = caplog.records
    assert any(r in record.getMessage() for r in reason.split("|"))


def test_one_notice_counts_all_reasons(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder(tmp_path, "a/0.png", "b/0.png", "stray.png")
    for name in ("a/1.txt", "b/2.txt", "c.csv"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.INFO, "refocus"):
        class_folders(tmp_path, "images")
    (record,) = caplog.records
    assert "4 files are left out" in record.getMessage()
    for reason in ("2 .txt", "1 .csv", "1 images beside the class folders"):
        assert reason in record.getMessage()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/a/0.png", "val/a/0.png"), "did you mean .*/val"),
        (("train/a/0.png", "test/a/0.png"), "did you mean .*/test"),
        (("images/a/0.png", "images/b/0.png"), "did you mean .*/images"),
        (("a/0.png", "a/session2/1.png"), "session2: its images lie deeper than CLASS/FILE"),
        (("a/0.png", "b/x/y/1.png"), "x: its images lie deeper than CLASS/FILE"),
    ],
)
def test_folders_of_another_depth_are_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        class_folders(folder(tmp_path, *names), "images")


@pytest.mark.parametrize("ending", [".PNG", ".jpg", ".bmp", ".tif"])
def test_masks_may_have_any_ending(
    tiny: Build, image_folders: tuple[Path, Path], ending: str
) -> None:
    images, masks = image_folders
    for file in masks.glob("*/*.png"):
        with Image.open(file) as mask:
            mask.save(file.with_suffix(ending))
        if ending != ".PNG":
            file.unlink()
    for file in masks.glob("*/*.png") if ending == ".PNG" else ():
        file.unlink()
    assert all(s.mask is not None for s in scan(images, tiny(), masks=masks))


def test_two_masks_of_one_name_are_refused(tiny: Build, image_folders: tuple[Path, Path]) -> None:
    images, masks = image_folders
    with Image.open(masks / "ant" / "0.png") as mask:
        mask.save(masks / "ant" / "0.bmp")
    with pytest.raises(InputError, match="two masks with the same name"):
        scan(images, tiny(), masks=masks)


@pytest.mark.parametrize("pair", [("café", "cafe\u0301"), ("ü", "u\u0308"), ("å", "a\u030a")])
def test_names_of_images_and_masks_are_compared_as_they_look(
    tiny: Build, tmp_path: Path, pair: tuple[str, str]
) -> None:
    model = tiny(num_classes=2)
    model.pretrained_cfg["label_names"] = [pair[0], "x"]
    for one, other in (pair, pair[::-1]):
        root = tmp_path / ("a" if one == pair[0] else "b")
        folder(root, f"i/{one}/{one}.png", "i/x/0.png")
        for name in (f"m/{other}/{other}.png", "m/x/0.png"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            mask = Image.new("L", gradient().size)
            mask.paste(255, (5, 5, 20, 20))
            mask.save(root / name)
        samples = scan(root / "i", model, masks=root / "m")
        assert [s.label for s in samples if s.mask is not None] in ([0, 1], [1, 0])


def test_heic_is_read_by_the_plug_in_and_named_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pillow_heif")
    for name in ("a.heic", "b.HEIF"):
        gradient().save(tmp_path / name, format="HEIF", quality=90)
    found = listings.listing(tmp_path, "images")
    assert [f.name for f in found.images] == ["a.heic", "b.HEIF"]
    pixels, wanted = np.asarray(read_image(found.images[0])), np.asarray(gradient())
    assert np.abs(pixels.astype(float) - wanted).mean() < 3  # it is lossy
    plain = tuple(e for e in listings.EXTENSIONS if e not in listings.PLUGGED_IN)
    monkeypatch.setattr(listings, "EXTENSIONS", plain)
    reasons = listings.listing(tmp_path, "images").left_out
    assert reasons[".heic (needs pillow-heif: pip install 'refocus-vit[heic]')"] == 1


@pytest.mark.parametrize("kind", ["webp", "avif", "tiff", "jp2", "bmp"])
def test_common_kinds_are_read(kind: str, tmp_path: Path) -> None:
    gradient().save(tmp_path / f"a.{kind}")
    (file,) = listings.listing(tmp_path, "images").images
    difference = np.abs(np.asarray(read_image(file)).astype(float) - np.asarray(gradient()))
    assert difference.mean() < 5
