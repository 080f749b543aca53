"""Perturbations of pixels: what changes, what stays, and where chance comes from.

It follows from each image's seed alone.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refocus.probes.tools import perturbations as change


def picture(height: int = 32, width: int = 32, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, height, width) * 0.8 + 0.1


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_occlusion_blackens_the_first_patches_and_nothing_else(share: float) -> None:
    pixels, order = picture(), change.random_order(16, [1, 2])
    cells = (
        change.occlude(pixels, (4, 4), order, share).unfold(2, 8, 8).unfold(3, 8, 8)
    )  # [B, 3, 4, 4, 8, 8]
    before = pixels.unfold(2, 8, 8).unfold(3, 8, 8)
    for image in range(2):
        gone = set(order[image, : round(share * 16)].tolist())
        for patch in range(16):
            cell = cells[image, :, patch // 4, patch % 4]
            assert torch.equal(
                cell,
                torch.zeros_like(cell)
                if patch in gone
                else before[image, :, patch // 4, patch % 4],
            )


def test_occlusion_leaves_pixels_that_are_in_no_patch() -> None:
    pixels, order = picture(38, 38), change.random_order(16, [1, 2])
    found = change.occlude(pixels, (4, 4), order, 0.5, (32, 32))
    whole = change.occlude(pixels[..., :32, :32], (4, 4), order, 0.5)
    assert torch.equal(found[..., :32, :32], whole)
    assert torch.equal(found[..., 32:], pixels[..., 32:])
    assert torch.equal(found[..., 32:, :], pixels[..., 32:, :])


def test_orders_follow_from_the_seed_of_the_image_alone() -> None:
    both, alone = change.random_order(16, [5, 9]), change.random_order(16, [9])
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[0], both[1])
    assert sorted(alone[0].tolist()) == list(range(16))


def test_permuted_cells_change_places_whole() -> None:
    pixels = picture()
    mixed = change.permute_cells(pixels, 4, [3, 4])
    before, after = (
        x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        for x in (pixels, mixed)
    )
    for image in range(2):
        places = [[torch.equal(a, b) for b in before[image]].index(True) for a in after[image]]
        assert sorted(places) == list(range(16))
        assert places == change.random_order(16, [3, 4])[image].tolist()


def test_pixels_that_fill_no_cell_stay_as_a_border() -> None:
    pixels = picture(42, 45)
    mixed = change.permute_cells(pixels, 8, [3, 4])
    assert torch.equal(mixed[..., :1, :], pixels[..., :1, :])
    assert torch.equal(mixed[..., 41:, :], pixels[..., 41:, :])
    assert torch.equal(mixed[..., :2], pixels[..., :2])
    assert torch.equal(mixed[..., 42:], pixels[..., 42:])
    assert torch.equal(mixed.sort(-1).values.sum((2, 3)), mixed.sort(-1).values.sum((2, 3)))
    assert not torch.equal(mixed, pixels)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_boxes_have_their_share_of_the_area_and_lie_inside(share: float) -> None:
    found = change.boxes((60, 40), share, list(range(50)))
    assert found.mean((1, 2, 3)).sub(share).abs().max() < 0.02
    for box in found[:, 0]:
        rows, columns = torch.nonzero(box.any(1)).flatten(), torch.nonzero(box.any(0)).flatten()
        assert box.sum() == len(rows) * len(columns)  # one rectangle
    assert (
        len({tuple(torch.nonzero(b)[0].tolist()) for b in found[:, 0]}) > 20
    )  # all over the image


def test_filters_keep_the_frequencies_on_their_side() -> None:
    along = torch.arange(32) / 32 * 2 * torch.pi
    slow, fast = (
        0.2 * torch.sin(2 * along),
        0.2 * torch.sin(10 * along),
    )  # 2 and 10 cycles; the highest is 16
    pixels = (0.5 + slow + fast).expand(1, 3, 32, 32)
    torch.testing.assert_close(
        change.low_pass(pixels, 0.4), (0.5 + slow).expand(1, 3, 32, 32), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        change.high_pass(pixels, 0.4), (0.5 + fast).expand(1, 3, 32, 32), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(change.low_pass(pixels, 1.5), pixels, atol=1e-5, rtol=0)
    torch.testing.assert_close(change.high_pass(pixels, 0.0), pixels, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 0), (-2, 5), (8, 6)])
def test_the_fourier_basis_is_one_frequency_of_norm_one(row: int, column: int) -> None:
    wave = change.fourier_basis(16, 12, row, column)
    assert wave.norm() == pytest.approx(1, abs=1e-5)
    spectrum = torch.fft.fft2(wave).abs()
    there = {tuple(p) for p in torch.nonzero(spectrum > 1e-3).tolist()}
    assert there == {(row % 16, column % 12), (-row % 16, -column % 12)}


def test_fourier_noise_has_its_norm_in_every_channel() -> None:
    pixels = torch.full((2, 3, 16, 16), 0.5)
    noise = change.fourier_noise(pixels, 2, 3, 1.5, [1, 2]) - pixels
    torch.testing.assert_close(
        noise.flatten(2).norm(dim=2), torch.full((2, 3), 1.5), atol=1e-4, rtol=0
    )


def test_silhouettes_are_black_on_white() -> None:
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., 2:6, 2:6] = 1
    drawn = change.silhouettes(masks)
    assert drawn.shape == (1, 3, 8, 8)
    assert torch.equal(drawn[:, 0], 1 - masks[:, 0])


def test_edges_are_drawn_on_the_object_alone() -> None:
    pixels, masks = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    masks[..., 10:50, 10:50] = 1
    pixels[..., 10:50, 30:50] = 1  # an edge within the object, at column 30
    pixels[..., 55:, :] = 1  # and one outside
    drawn = change.edges(pixels, masks)[0, 0] == 0
    assert not (drawn & (masks[0, 0] == 0)).any()
    assert drawn[10, 10:50].all()  # outline
    assert drawn[10:50, 10].all()
    assert drawn[15:45, 28:32].any(1).all()  # inner edge
    assert not drawn[15:45, 15:25].any()
    assert np.isin(change.edges(pixels, masks).numpy(), (0, 1)).all()
