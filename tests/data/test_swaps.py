"""The background swap: the object stays, nothing of the donor's object comes along."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from refocus.data.swaps import (
    fill_object,
    next_donors,
    other_class_donors,
    other_class_neighbours,
    other_class_pairs,
    swap_backgrounds,
    taken_out,
    widened,
)


def test_filling_keeps_the_background_and_forgets_the_object() -> None:
    images, masks = torch.rand(2, 3, 33, 20), torch.zeros(2, 1, 33, 20)
    masks[:, :, 5:20, 4:12] = 1
    filled = fill_object(images, masks)
    outside = (masks == 0).expand_as(images)
    torch.testing.assert_close(filled[outside], images[outside])
    changed = torch.where(outside, images, torch.rand_like(images))
    torch.testing.assert_close(
        fill_object(changed, masks), filled
    )  # the object's pixels have no influence
    inside = filled[~outside]
    assert images[outside].min() <= inside.min()
    assert inside.max() <= images[outside].max()


def test_filling_an_even_background_is_exact_and_an_all_object_image_stays_finite() -> None:
    images, masks = torch.full((1, 3, 17, 17), 0.4), torch.zeros(1, 1, 17, 17)
    masks[..., 3:9, 3:9] = 1
    torch.testing.assert_close(fill_object(images + masks, masks), images)
    assert fill_object(images, torch.ones_like(masks)).isfinite().all()


def test_swapping_puts_the_object_on_the_donor() -> None:
    images, donors = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    masks, donor_masks = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    masks[..., :4], donor_masks[..., 8:] = 1, 1
    donors[..., 8:] = 9  # the donor's own object
    swapped = swap_backgrounds(images, masks, donors, donor_masks)
    assert torch.equal(swapped[..., :4], torch.zeros(1, 3, 16, 4))
    torch.testing.assert_close(swapped[..., 4:], torch.ones(1, 3, 16, 12))


def test_a_tight_mask_of_the_donor_leaves_no_rim_in_a_swap() -> None:
    images, masks = torch.zeros(1, 3, 100, 100), torch.zeros(1, 1, 100, 100)
    donors, donor_masks = torch.ones(1, 3, 100, 100), torch.zeros(1, 1, 100, 100)
    masks[..., :2, :2] = 1
    donors[..., 30:60, 30:60], donor_masks[..., 33:57, 33:57] = 9, 1  # 3 pixels too tight
    assert swap_backgrounds(images, masks, donors, donor_masks).max() == 1
    assert swap_backgrounds(images, masks, donors, donor_masks, margin=0).max() > 1


@pytest.mark.parametrize(("free", "taken"), [(1, 48**2), (2, 46**2), (3, 48**2), (0, 50**2)])
def test_an_object_that_leaves_less_than_the_margin_is_taken_as_it_is(
    free: int, taken: int
) -> None:
    images, masks = torch.full((2, 3, 50, 50), 0.4), torch.zeros(2, 1, 50, 50)
    masks[0, :, free : 50 - free, free : 50 - free] = 1
    masks[1, :, 20:30, 20:30] = 1
    out = taken_out(masks)  # the margin is 2 pixels
    assert out.sum((1, 2, 3)).tolist() == [taken, 14**2]  # each image by itself
    swapped = swap_backgrounds(images, torch.zeros_like(masks), images + masks, masks)
    torch.testing.assert_close(
        swapped, images if free else images * torch.tensor([0, 1])[:, None, None, None]
    )


def test_donors_are_of_another_class_and_follow_the_seed() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    donors = other_class_donors(labels, seed=3)
    assert (labels[donors] != labels).all()
    assert torch.equal(donors, other_class_donors(labels, seed=3))
    assert other_class_donors(torch.zeros(3, dtype=torch.long), seed=0).max() < 3


def test_neighbours_of_other_classes_come_first_and_again_where_they_are_few() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    first, second, third = other_class_neighbours(labels, 3)
    assert first.tolist() == [3, 3, 1, 2]
    assert second.tolist() == [2, 2, 0, 1]
    assert third.tolist() == [3, 3, 3, 0]
    for donors in (first, second, third):
        assert (labels[donors] != labels).all()


def test_neighbours_are_of_the_own_class_where_a_batch_has_one_class() -> None:
    expected = next_donors(3, 2)
    found = other_class_neighbours(torch.tensor([5, 5, 5]), 2)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert other_class_neighbours(torch.tensor([5]), 1)[0].tolist() == [0]
    assert other_class_neighbours(torch.tensor([5]), 0) == []


@pytest.mark.parametrize("size", [(1, 9), (16, 16), (40, 70), (130, 101)])
def test_widened_is_the_largest_value_of_a_square_window(size: tuple[int, int]) -> None:
    masks = torch.rand(2, 1, *size) * (torch.rand(2, 1, *size) > 0.95)
    for margin in (0.0, 0.04, 0.1):
        pixels = round(margin * min(size))
        expected = F.max_pool2d(masks, 2 * pixels + 1, 1, pixels)
        assert torch.equal(widened(masks, margin), expected)


@pytest.mark.parametrize(
    ("counts", "pairs"),
    [
        ([10, 10], 10),
        ([7, 7, 7], 10),
        ([1, 20], 1),
        ([3, 2, 30], 5),
        ([5], 0),
        ([], 0),
        ([1] * 9, 4),
    ],
    ids=str,
)
def test_pairs_are_of_two_classes_disjoint_and_as_many_as_there_can_be(
    counts: list[int], pairs: int
) -> None:
    labels = torch.cat([torch.full((n,), i) for i, n in enumerate(counts)] or [torch.zeros(0)])
    found = [other_class_pairs(labels, seed) for seed in range(20)]
    for some in found:
        assert some.shape == (pairs, 2)
        assert len(some.unique()) == 2 * pairs
        assert (labels[some[:, 0]] != labels[some[:, 1]]).all()
    assert torch.equal(found[3], other_class_pairs(labels, 3))
    if len(labels) > 2 * pairs > 0:  # each image has its turn
        assert len(torch.cat(found).unique()) > 2 * pairs
