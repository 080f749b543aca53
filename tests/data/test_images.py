"""Files as people have them, the few-shot selection, and transforms that keep image and mask
together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import tv_tensors

from refocus.data.folders import scan
from refocus.data.images import read_image, read_mask
from refocus.data.sampling import pick_classes, pick_shots, spread, usable
from refocus.data.transforms import MaskedImages, eval_image, joint_transform
from refocus.errors import InputError

Build = Callable[..., nn.Module]


def gradient(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.linspace(0, 255, 40 * 30).reshape(30, 40).astype(np.uint8)).convert(
        mode
    )


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
        with pytest.raises(InputError, match=r"object ids .*legal are 0/255"):
            read_mask(tmp_path / f"{number}.png")
    ones = Image.fromarray(values // 2).convert("P")
    ones.putdata((values // 2).ravel())
    ones.putpalette([0, 0, 0, 128, 0, 0])
    ones.save(tmp_path / "ones.png")
    assert read_mask(tmp_path / "ones.png").unique().tolist() == [0, 1]


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
    assert "masks of 1 classes without images are not read (bee)" in caplog.text


def test_scan_refuses(tiny: Build, image_folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = image_folders
    model = tiny()
    with pytest.raises(InputError, match=r"--images .*absent: no such folder"):
        scan(tmp_path / "absent", model)
    with pytest.raises(InputError, match=r"--masks .*absent: no such folder"):
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


def test_imagenet_layout_with_wordnet_ids(shared: Path) -> None:
    from refocus.vit.loading import load

    samples = scan(
        shared / "data" / "imagenet_sample", load("vit_tiny_patch16_224", pretrained=False)
    )
    assert len(samples) == 100
    assert next(s.label for s in samples if s.image.parent.name == "n01440764") == 0


def test_class_and_shot_selection_follow_their_seeds(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    samples = scan(images, tiny(), masks=masks)
    assert pick_classes(samples, None, None) == [0, 1]
    assert pick_classes(samples, 3, None) == [0, 1, 2]
    assert pick_classes(samples, 2, 1) == pick_classes(samples, 2, 1)
    assert {tuple(pick_classes(samples, 2, seed)) for seed in range(8)} != {(0, 1)}
    with pytest.raises(InputError, match="--classes 9: the image folder has only 4"):
        pick_classes(samples, 9, None)
    shots = pick_shots(samples, [0, 2], 3, seed=0, skip_bad=False)
    assert [s.label for s in shots] == [0, 0, 0, 2, 2, 2]
    assert len(set(shots)) == 6
    assert shots == pick_shots(samples, [0, 2], 3, seed=0, skip_bad=False)
    assert shots != pick_shots(samples, [0, 2], 3, seed=1, skip_bad=False)
    with pytest.raises(InputError, match="--shots 7: class 'ant' has only 6 usable images"):
        pick_shots(samples, [0], 7, seed=0, skip_bad=False)
    assert [
        s.label for s in pick_shots(samples, [0, 2], 7, seed=0, skip_bad=False, fewer=True)
    ].count(0) == 6
    assert (
        sorted(s.label for s in spread(samples, 6, 0, skip_bad=False))
        in ([0, 0, 1, 1, 2, 3], [0, 1, 2, 2, 3, 3])
        or len({s.label for s in spread(samples, 6, 0, skip_bad=False)}) == 4
    )


def test_bad_images_stop_the_selection_or_are_left_out_by_name(
    tiny: Build, image_folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    images, masks = image_folders
    (masks / "ant" / "0.png").unlink()
    Image.new("L", (40, 36)).save(masks / "ant" / "1.png")
    (images / "ant" / "2.png").write_bytes((images / "ant" / "2.png").read_bytes()[:100])
    samples = [s for s in scan(images, tiny(), masks=masks) if s.label == 0]
    for position, message in enumerate(
        [
            r"0\.png: image without a mask",
            r"1\.png: the mask is all background",
            r"2\.png: cannot be read",
        ]
    ):
        with pytest.raises(InputError, match=f"{message}.*--skip-bad"):
            usable(samples[position:], 3, skip_bad=False)
    assert [s.image.name for s in usable(samples, 3, skip_bad=True)] == ["3.png", "4.png", "5.png"]
    assert caplog.text.count("left out") == 3


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("crop", [{"crop_pct": 0.8}, {"crop_pct": 0.9, "crop_mode": "squash"}])
def test_evaluation_crop_is_timms_own(
    tiny: Build, size: tuple[int, int], crop: dict[str, object]
) -> None:
    model = tiny(img_size=size)
    model.pretrained_cfg.update(crop, input_size=(3, *size))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8))
    joint, _ = joint_transform(model, train=False)(image, tv_tensors.Mask(torch.zeros(1, 90, 70)))
    torch.testing.assert_close(torch.as_tensor(joint), eval_image(model)(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_image_and_mask_stay_together_and_soft_values_stay(
    tiny: Build, tmp_path: Path, train: bool
) -> None:
    """Where the image is white the mask is 1, before and after; a soft value survives."""
    model = tiny()
    values = np.zeros((60, 60), np.uint8)
    values[10:30, 20:50] = 255
    values[40:55, 5:25] = 100
    for name in ("image", "mask"):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    from refocus.records import Sample

    data = MaskedImages(
        [Sample(tmp_path / "image.png", 0, tmp_path / "mask.png")],
        joint_transform(model, train=train),
        seed=5,
    )
    for epoch in range(6):
        data.epoch = epoch
        image, mask, _ = data[0]
        shown = (image.mean(0) * 0.5 + 0.5).clamp(0, 1)
        assert set(mask.unique().tolist()) <= {0.0, 1.0, np.float32(100 / 255)}
        assert np.float32(100 / 255) in mask.unique().tolist()
        assert (shown - mask[0]).abs().mean() < 0.06
        assert torch.equal(data[0][0], image)  # the same crop for the same epoch
    if train:
        data.epoch = 0
        assert not torch.equal(data[0][0], image)
