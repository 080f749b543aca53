"""Images and masks as people have them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from refocus.data.images import read_image, read_mask
from refocus.errors import InputError
from tests.makers import gradient


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    gradient(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert image.size == (40, 30)
    if mode != "1":
        assert (
            np.abs(np.asarray(image, dtype=int) - np.asarray(gradient("RGB"), dtype=int)).max() < 12
        )


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.abs(np.asarray(read_image(tmp_path / "x.png"))[..., 0] - values / 257).max() <= 0.51


def test_a_gif_named_jpg_is_read_by_its_content_first_frame(tmp_path: Path) -> None:
    frames = [gradient("P"), Image.new("P", (40, 30), 7)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "x.gif").rename(tmp_path / "x.jpg")
    assert (
        np.abs(
            np.asarray(read_image(tmp_path / "x.jpg"), dtype=int)[..., 0]
            - np.asarray(gradient(), dtype=int)[..., 0]
        ).max()
        < 12
    )


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 clockwise to view"
    gradient().save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (30, 40)


def test_unreadable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole.jpg"
    gradient().save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:300])
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("cut.jpg", "text.jpg", "absent.jpg"):
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 1000
    )  # 1200 pixels: Pillow warns; 2000 and more: it raises
    with pytest.raises(InputError, match=r"whole\.jpg.*decompression bomb"):
        read_image(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"whole\.jpg.*decompression bomb"):
        read_image(whole)


@pytest.mark.parametrize("top", [1, 255])
def test_masks_may_be_0_1_or_0_255_and_soft(tmp_path: Path, top: int) -> None:
    values = np.zeros((30, 40), dtype=np.uint8)
    values[5:10, 5:10] = top
    Image.fromarray(values).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", gradient())
    assert mask.shape == (1, 30, 40)
    assert mask.unique().tolist() == [0, 1]
    values[5, 5] = 128
    Image.fromarray(values).save(tmp_path / "m.png")
    if top == 255:
        assert 128 / 255 in read_mask(tmp_path / "m.png").unique().tolist() or read_mask(
            tmp_path / "m.png"
        )[0, 5, 5].item() == pytest.approx(128 / 255)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((30, 40), np.uint8), "all background"),
        (np.full((30, 40), 255, np.uint8), "all foreground"),
        (np.eye(30, dtype=np.uint8) * 255, "30x30 pixels, its image 40x30"),
    ],
)
def test_unusable_masks_are_named(tmp_path: Path, values: np.ndarray, message: str) -> None:
    Image.fromarray(values).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=message):
        read_mask(tmp_path / "m.png", gradient())


def test_object_ids_are_not_taken_for_soft_masks(tmp_path: Path) -> None:
    values = np.zeros((30, 40), np.uint8)
    values[5:10, 5:10] = 2
    palette = Image.fromarray(values).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    for number, mask in enumerate((Image.fromarray(values), palette)):
        mask.save(tmp_path / f"{number}.png")
        with pytest.raises(InputError, match=r"object ids .*must be 0/255"):
            read_mask(tmp_path / f"{number}.png")
    ones = Image.fromarray(values // 2).convert("P")
    ones.putdata((values // 2).ravel())
    ones.putpalette([0, 0, 0, 128, 0, 0])
    ones.save(tmp_path / "ones.png")
    assert read_mask(tmp_path / "ones.png").unique().tolist() == [0, 1]


def test_reading_leaves_the_filters_of_warnings_alone_as_they_are_those_of_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradient().save(tmp_path / "x.png")
    before, turn = list(warnings.filters), ImageOps.exif_transpose
    meanwhile = []

    def watched(picture: Image.Image) -> Image.Image:
        meanwhile.append(list(warnings.filters))
        return turn(picture)

    monkeypatch.setattr(ImageOps, "exif_transpose", watched)
    read_image(tmp_path / "x.png")
    assert meanwhile == [before]
