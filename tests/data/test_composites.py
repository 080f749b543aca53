"""An object cut out, placed and turned; a background without it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from refocus.data import composites
from refocus.data.composites import Scene
from refocus.data.swaps import widened

GREY = Image.new("RGB", (90, 50), (100, 100, 100))


def square(
    side: int = 60, low: int = 20, high: int = 40, color: int = 200
) -> tuple[Image.Image, Tensor]:
    """A bright square on a dark gradient, and its mask."""
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 90, side)[None]
    pixels[low:high, low:high] = color
    mask = torch.zeros(1, side, side)
    mask[:, low:high, low:high] = 1
    return Image.fromarray(pixels), mask


def test_the_object_keeps_its_pixels_and_the_edge_is_blended_inwards() -> None:
    image, mask = square()
    for picture, outside in (
        (composites.on_black(Scene(image, mask)), 0),
        (composites.on_background(Scene(image, mask), GREY), 100),
    ):
        pixels = np.asarray(picture)
        assert (pixels[24:36, 24:36] == 200).all()
        beyond = np.ones((60, 60), dtype=bool)
        beyond[20:40, 20:40] = False
        assert (pixels[beyond] == outside).all()  # nothing of the old background comes along
        assert outside < pixels[20, 30, 0] < 200  # the edge lies between


def test_a_silhouette_keeps_the_background_and_hides_the_object() -> None:
    image, mask = square()
    pixels, inside = np.asarray(composites.silhouette(Scene(image, mask))), mask[0].bool().numpy()
    assert (pixels[inside] == 0).all()  # up to its rim
    assert (pixels[~inside] == np.asarray(image)[~inside]).all()
    soft = np.asarray(composites.silhouette(Scene(image, 0.5 * mask)))
    assert (soft[inside] == 100).all()  # of 200: a mask keeps its own softness


def test_without_object_nothing_of_the_object_is_left() -> None:
    image, mask = square()
    other, _ = square(color=30)
    filled = composites.without_object(image, mask)
    assert filled.tobytes() == composites.without_object(other, mask).tobytes()
    assert np.asarray(filled)[30, 30, 0] < 91  # of the gradient's range


def test_a_mask_that_is_a_little_too_tight_leaves_no_rim() -> None:
    image, mask = square(side=100, low=30, high=60)
    tight = mask.clone()
    tight[:, 30:33], tight[:, :, 57:60] = 0, 0  # three pixels of the bright object are outside
    assert np.asarray(composites.without_object(image, tight)).max() < 91
    assert widened(mask).sum() == (30 + 8) ** 2  # 4 % of 100 on each side
    assert torch.equal(widened(mask, 0), mask)


def test_an_object_that_nearly_fills_the_image_is_filled_from_its_rim() -> None:
    image, mask = square(side=100, low=3, high=97)
    pixels = np.asarray(composites.without_object(image, mask))[..., 0]
    assert pixels[10:90, 30:70].min() > 20  # of the gradient's range; black before
    assert pixels.max() < 91


@pytest.mark.parametrize("area", [0.02, 0.1, 0.25])
@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.3, 0.6)])
def test_placing_sets_area_and_centre(area: float, centre: tuple[float, float]) -> None:
    image, mask = square(side=120, low=40, high=80)
    pixels = np.asarray(
        composites.placed(Scene(image, mask), GREY, area=area, centre=centre, angle=0)
    ).astype(float)
    ys, xs = np.nonzero(np.abs(pixels - 100).sum(2) > 15)
    assert ((xs.max() - xs.min() + 1) * (ys.max() - ys.min() + 1)) / 120**2 == pytest.approx(
        area, rel=0.25
    )
    assert ((xs.min() + xs.max() + 1) / 240, (ys.min() + ys.max() + 1) / 240) == pytest.approx(
        centre, abs=0.02
    )


def test_turning_is_counter_clockwise_and_keeps_the_object_whole() -> None:
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    pixels[20:80, 40:60], pixels[20:30, 40:60] = (
        (0, 0, 255),
        (255, 0, 0),
    )  # an upright bar with a red head
    mask = torch.zeros(1, 100, 100)
    mask[:, 20:80, 40:60] = 1
    turned = np.asarray(
        composites.placed(
            Scene(Image.fromarray(pixels), mask), GREY, area=0.12, centre=(0.5, 0.5), angle=90
        )
    )
    red = np.argwhere((turned[..., 0] > 200) & (turned[..., 1] < 60))
    blue = np.argwhere((turned[..., 2] > 200) & (turned[..., 1] < 60))
    assert red[:, 1].mean() < blue[:, 1].mean() - 20  # the head now points left
    assert len(blue) > 0.75 * 50 * 20


def test_an_object_larger_than_the_frame_is_cut_and_one_of_a_pixel_survives() -> None:
    image, mask = square()
    assert (
        np.asarray(
            composites.placed(Scene(image, mask), GREY, area=2.0, centre=(0.5, 0.5), angle=0)
        )[5:-5, 5:-5]
        == 200
    ).all()
    mask = torch.zeros(1, 60, 60)
    mask[0, 30, 30] = 1
    placed = np.asarray(
        composites.placed(Scene(image, mask), GREY, area=0.01, centre=(0.5, 0.5), angle=45)
    ).astype(int)
    assert np.abs(placed - 100).max() > 5  # something of it is to be seen


def test_a_soft_mask_stays_as_soft_and_its_halo_does_not_count_as_the_object() -> None:
    _, mask = square()
    soft = 0.7 * mask
    torch.testing.assert_close(composites.feather(soft)[0, 25:35, 25:35], soft[0, 25:35, 25:35])
    halo = torch.full_like(mask, 0.2)
    halo[mask > 0] = 1
    assert composites._box(halo) == (20, 20, 40, 40)


def test_unseen_kinds_keep_the_object_and_take_the_background_away() -> None:
    image, mask = square(side=100, low=30, high=60)
    striped = np.asarray(image).copy()
    striped[::2, 60:] = 0  # a texture beside the object, gone in a blur and on a plain colour
    image = Image.fromarray(striped)
    for made in (composites.on_blur(Scene(image, mask)), composites.on_plain(Scene(image, mask))):
        pixels = np.asarray(made).astype(int)
        assert np.array_equal(pixels[34:56, 34:56], striped[34:56, 34:56])
        assert abs(pixels[40, 80] - pixels[41, 80]).max() <= 12
    assert (
        len(
            np.unique(
                np.asarray(composites.on_plain(Scene(image, mask)))[:20].reshape(-1, 3), axis=0
            )
        )
        == 1
    )
    moved = np.asarray(composites.moved(Scene(image, mask)))
    bright = np.argwhere(moved[..., 0] > 150)
    assert len(bright)
    assert bright.max() - bright.min() < 100
    assert moved.tobytes() == np.asarray(composites.moved(Scene(image, mask))).tobytes()
