"""Transforms that keep image and mask together, and published preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision import tv_tensors

from refocus.data.transforms import (
    MaskedImages,
    eval_image,
    joint_transform,
    paper_image,
    scale_of,
)
from refocus.figures.pictures import to_picture
from tests.makers import Build


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
