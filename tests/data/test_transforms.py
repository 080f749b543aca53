"""Transforms that keep image and mask together, and published preprocessing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from refocus.data.folders import scan
from refocus.data.images import read_image
from refocus.data.transforms import (
    MaskedImages,
    eval_image,
    joint_transform,
    paper_image,
    scale_of,
)
from refocus.errors import InputError
from refocus.figures.pictures import to_picture
from tests.makers import Build, gradient


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


@pytest.mark.parametrize("side", [50, 64, 100, 333])
@pytest.mark.parametrize("change", [{}, {"crop_pct": 0.8}, {"crop_mode": "squash"}])
@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
def test_a_mask_lies_where_its_object_lies(
    tiny: Build, side: int, change: dict[str, object], size: tuple[int, int]
) -> None:
    """To less than a fifth of a pixel on average; half a pixel where corners were taken."""
    model = tiny(img_size=size)
    model.pretrained_cfg.update(change, input_size=(3, *size))
    y, x = np.mgrid[:side, :side]
    disk = np.hypot(y - side * 0.52, x - side * 0.48) < side * 0.3
    picture = Image.fromarray(np.repeat(disk[..., None], 3, 2).astype(np.uint8) * 255)
    given = tv_tensors.Mask(torch.from_numpy(disk[None].astype(np.float32)))
    image, mask = joint_transform(model, train=False)(picture, given)
    white = torch.as_tensor(image).double()[0]
    seen = (white - white.min()) / (white.max() - white.min())
    for axis in (0, 1):
        steps = torch.arange(mask.shape[1 + axis], dtype=torch.double)
        ours, theirs = ((v.sum(1 - axis) * steps).sum() / v.sum() for v in (mask[0].double(), seen))
        assert abs(ours - theirs) < 0.2


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


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_a_picture_of_any_mode_is_seen_as_it_is_read(
    tiny: Build, tmp_path: Path, mode: str
) -> None:
    seen = eval_image(tiny())
    picture = gradient("L").convert(mode)
    if "A" in mode:
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    picture.save(file)
    assert torch.equal(seen(picture), seen(read_image(file)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("cat.png", r"image: str 'cat.png'; must be a PIL image, as refocus.read_image"),
        (np.zeros((30, 40, 3), np.uint8), r"image: numpy.ndarray \[30, 40, 3\]; must be a PIL"),
        (torch.zeros(3, 30, 40, dtype=torch.uint8), r"image: \[3, 30, 40\] uint8; must be a PIL"),
        (Image.new("I;16", (40, 30)), "mode I;16, whose white is not known"),
        (Image.new("F", (40, 30)), "mode F, whose white is not known"),
    ],
    ids=["path", "array", "bytes", "16 bits", "floats"],
)
def test_what_is_no_picture_is_refused(tiny: Build, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        eval_image(tiny())(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"flip": 2}, "^flip 2: must be a number between 0 and 1$"),
        ({"flip": "x"}, "^flip x: must be a number between 0 and 1$"),
        ({"train": "no"}, "^train no: must be True or False$"),
    ],
)
def test_what_crops_and_flips_cannot_be_is_refused(
    tiny: Build, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        joint_transform(tiny(), **{"train": True, **given})


def test_paper_preprocessing_is_the_published_one() -> None:
    model = timm.create_model(
        "vit_tiny_patch16_224", pretrained_cfg_overlay={"crop_pct": 0.9, "mean": (0.4, 0.4, 0.4)}
    )
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    )
    side = picture.resize((341, 256), Image.Resampling.BILINEAR)  # shorter side 256
    left, top = round((341 - 224) / 2), (256 - 224) // 2
    pixels = (
        torch.from_numpy(np.array(side.crop((left, top, left + 224, top + 224)))).permute(2, 0, 1)
        / 255
    )
    torch.testing.assert_close(paper_image(model)(picture), (pixels - 0.5) / 0.5)


def test_the_papers_preprocessing(tiny: Build) -> None:
    """A grey picture of 191/255 becomes (0.749 - 0.5) / 0.5 for every model."""
    model = tiny()
    model.pretrained_cfg.update(mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1))
    image, mask = (
        Image.new("RGB", (64, 48), (191, 191, 191)),
        tv_tensors.Mask(torch.ones(1, 48, 64)),
    )
    for train in (True, False):
        pixels, _ = joint_transform(model, train=train, protocol="paper")(image, mask)
        torch.testing.assert_close(
            pixels.as_subclass(torch.Tensor), torch.full((3, 32, 32), (191 / 255 - 0.5) / 0.5)
        )
    own, _ = joint_transform(model, train=False)(image, mask)
    assert own[0].mean() == pytest.approx((191 / 255 - 0.1) / 0.3, abs=1e-4)
    for shown, protocol in ((pixels, "paper"), (own, "standard")):  # and back, for a picture
        picture = to_picture(shown.as_subclass(torch.Tensor), *scale_of(model, protocol))
        assert (picture == 191).all()


def test_the_papers_masks_are_resized_bilinearly_with_their_image_and_ours_stay_hard(
    tiny: Build,
) -> None:
    model = tiny()
    rng = np.random.default_rng(0)
    hard = np.where(rng.random((60, 90)) > 0.5, 255, 0).astype(np.uint8)
    image, mask = (
        Image.fromarray(hard).convert("RGB"),
        tv_tensors.Mask(hard[None] / np.float32(255)),
    )
    for train in (True, False):
        torch.manual_seed(3)
        pixels, soft = joint_transform(model, train=train, protocol="paper")(image, mask)
        # the mask goes where the image goes: here both hold the same values
        torch.testing.assert_close(
            soft.as_subclass(torch.Tensor)[0], pixels[0] * 0.5 + 0.5, atol=0.01, rtol=0
        )
        assert ((soft > 0.1) & (soft < 0.9)).any()
        _, ours = joint_transform(model, train=train)(image, mask)
        assert set(ours.unique().tolist()) == {0.0, 1.0}


def test_crops_follow_from_their_seed_whatever_other_threads_draw(
    tiny: Build, image_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = image_folders
    model = tiny()
    rows = MaskedImages(scan(images, model, masks=masks), joint_transform(model, train=True), 3)
    before, wanted = torch.get_rng_state(), rows[0][0]
    assert torch.equal(torch.get_rng_state(), before)
    draw = v2.RandomCrop.make_params

    def beside(*given: Any) -> Any:
        thread = threading.Thread(target=torch.manual_seed, args=(0,))
        thread.start()
        thread.join()
        return draw(*given)

    monkeypatch.setattr(v2.RandomCrop, "make_params", beside)
    assert torch.equal(rows[0][0], wanted)
