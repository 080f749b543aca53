"""Numbers against hand-worked cases and slow literal versions."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

import refocus
from refocus.evaluation.metrics import (
    accuracy,
    background_share,
    calibration_difference,
    group_accuracies,
    group_differences,
    paired_difference,
    pointing_hit,
    segmentation_counts,
)
from refocus.records import Prediction
from refocus.results import ClassAccuracy


def prediction(image: int, label: int, *top: int) -> Prediction:
    return Prediction(str(image), label, top, 0.5)


def test_accuracy_counts_top1_top5_and_classes() -> None:
    result = accuracy(
        [prediction(0, 0, 0, 1), prediction(1, 0, 1, 0), prediction(2, 1, 2, 3)], ["a", "b"]
    )
    assert result.top1.value == pytest.approx(100 / 3)
    assert result.top5.value == pytest.approx(200 / 3)
    assert result.top1.n == 3
    assert result.per_class["a"] == ClassAccuracy(50.0, 100.0, 2)
    assert accuracy([], []).top1.value is None


def test_paired_difference_joins_by_image_and_brackets_the_mean() -> None:
    rng = np.random.default_rng(0)
    before = [prediction(i, 0, int(rng.random() > 0.5)) for i in range(400)]
    after = [prediction(i, 0, int(rng.random() > 0.7)) for i in reversed(range(400))]
    found = paired_difference(after, before).top1
    change = np.array(
        [
            (a.top5[0] == 0) - (b.top5[0] == 0.0)
            for a, b in zip(sorted(after, key=lambda p: int(p.image)), before, strict=True)
        ]
    )
    assert found.difference == pytest.approx(100 * change.mean())
    assert found.corrected - found.broken == change.sum()
    half = 1.96 * 100 * change.std() / 20  # the normal approximation, good at n = 400
    normal = [found.difference - half, found.difference + half]
    assert found.interval == pytest.approx(normal, abs=0.7)
    assert paired_difference(after, before).top1 == found  # seeded


def test_paired_difference_without_any_change_or_overlap() -> None:
    same = [prediction(i, 0, 0) for i in range(100)]
    found = paired_difference(same, same).top1
    bound = 100 * (
        1 - 0.025 ** (1 / 100)
    )  # so many could change and still leave none of 100 changed
    assert found.difference == 0
    assert found.interval == pytest.approx([-bound, bound])
    assert found.p == 1
    assert paired_difference(same, []).top1.interval is None


def test_further_right_answers_count() -> None:
    answers = [
        Prediction("a", 0, (7, 1, 2, 3, 4), 0.9, None, (7,)),
        Prediction("b", 0, (1, 2, 3, 4, 9), 0.9, None, (7, 9)),
    ]
    assert [p.right for p in answers] == [True, False]
    assert accuracy(answers, ["a"]).top1.value == 50
    assert accuracy(answers, ["a"]).top5.value == 100


def test_groups_are_paired_and_sorted() -> None:
    before = [prediction(i, i % 3, 0) for i in range(30)]  # right on class 0 alone
    after = [prediction(i, i % 3, min(i % 3, 1)) for i in range(30)]  # right on 0 and 1
    rows = group_differences(after, before, lambda p: f"class {p.label}")
    assert [row.name for row in rows] == ["class 1", "class 0", "class 2"]
    assert (rows[0].model, rows[0].against, rows[0].change.top1.corrected) == (100, 0, 10)
    low, high = rows[1].change.top1.interval
    assert low < 0 < high  # ten images without a change do not prove that there is none
    worst = group_accuracies(after, lambda p: f"class {p.label}")
    assert worst[0].name == "class 2"
    assert worst[0].top1.interval[1] > 0


def test_calibration_difference_joins_by_image() -> None:
    sure = [Prediction(str(i), 0, (0,), 0.99) for i in range(50)]
    unsure = [Prediction(str(i), 0, (0,), 0.60) for i in reversed(range(50))]
    found = calibration_difference(sure, unsure)
    assert found.difference == pytest.approx(0.01**2 - 0.40**2)
    assert found.interval is None  # with 50 images it would promise too much


def test_background_share() -> None:
    patches = torch.tensor([[[1.0, 3.0]], [[2.0, 0.0]], [[0.0, 0.0]]])
    masks = torch.tensor([[1.0, 0.0]]).repeat_interleave(4, 1).repeat(4, 1)[None].repeat(3, 1, 1)
    share = background_share(patches, masks)
    assert share[0].item() == pytest.approx(
        0.6875
    )  # bilinear upsampling carries a quarter of the difference over the edge
    assert share[1].item() == pytest.approx(0.125)
    assert share[2].isnan()
    counts = background_share(patches.long(), masks)  # of an integer type
    torch.testing.assert_close(counts, share, equal_nan=True)


def test_background_share_of_patches_that_do_not_cover_the_mask() -> None:
    patches, masks = torch.zeros(1, 27, 27), torch.zeros(1, 384, 384)
    patches[0, 13, 26] = 1
    masks[:, 175:203, 357:378] = 1  # what bilinear interpolation lights up of patches of 14
    assert background_share(patches, masks, (378, 378)).item() == pytest.approx(0, abs=1e-6)
    assert background_share(patches, masks).item() > 0.1  # drawn 6 pixels too far out


def test_segmentation_scores_against_a_literal_version() -> None:
    torch.manual_seed(0)
    relevance, masks = 5 * torch.rand(3, 6, 7) - 1, torch.rand(3, 6, 7) > 0.6
    correct = total = 0
    inter, union, precisions = np.zeros(2), np.zeros(2), []
    for raw, m in zip(relevance.numpy().astype(float), masks.numpy(), strict=True):
        r = (raw - raw.min()) / (raw.max() - raw.min())
        guess = r > r.mean()
        correct, total = correct + (guess == m).sum(), total + m.size
        for side in (0, 1):
            inter[side] += ((guess == side) & (m == side)).sum()
            union[side] += ((guess == side) | (m == side)).sum()
        precisions.append(
            average_precision_score(np.r_[~m.ravel(), m.ravel()], np.r_[1 - r.ravel(), r.ravel()])
        )
    found = refocus.segmentation_scores(relevance, masks)
    assert asdict(found) == pytest.approx(
        {
            "pixel_accuracy": correct / total,
            "miou": (inter / union).mean(),
            "map": np.mean(precisions),
        }
    )


def test_segmentation_scores_of_maps_within_a_graph() -> None:
    masks = torch.eye(4)[None]
    found = refocus.segmentation_scores(masks.clone().requires_grad_(), masks)
    assert found == refocus.segmentation_scores(masks, masks)


def test_segmentation_scores_of_a_perfect_map_and_of_wrong_shapes() -> None:
    masks = (torch.rand(2, 8, 8) > 0.5).float()
    assert asdict(refocus.segmentation_scores(masks, masks)) == pytest.approx(
        {"pixel_accuracy": 1, "miou": 1, "map": 1}
    )
    with pytest.raises(refocus.InputError, match="must be a tensor"):
        refocus.segmentation_scores(masks[:, None], masks)


def test_pointing_game_has_a_tolerance_that_scales_with_the_image() -> None:
    mask = torch.zeros(224, 224)
    mask[100:120, 100:120] = 1
    for column, hit in (
        (110, True),
        (133, True),
        (134, False),
        (160, False),
    ):  # 15 pixels from the last column, 119, is out
        relevance = torch.zeros(224, 224)
        relevance[110, column] = 1
        assert pointing_hit(relevance, mask) == hit
    assert pointing_hit(relevance, torch.zeros(224, 224)) is None  # no object
    assert pointing_hit(torch.ones(224, 224), mask) is None  # no maximum


def test_counts_of_a_map_that_is_the_mask() -> None:
    mask = torch.zeros(8, 8)
    mask[2:5] = 1
    assert segmentation_counts(mask, mask) == pytest.approx(
        [1, 1, 40 / 64, 40 / 64, 24 / 64, 24 / 64, 1]
    )


@pytest.mark.parametrize("gained", [4, 6])
def test_few_changed_images_are_judged_alike_in_top1_and_top5(gained: int) -> None:
    """Four to none of 200 may be chance (p = 0.125), six to none not."""
    before = [prediction(i, 0, *((1, 2) if i < gained else (0, 1))) for i in range(200)]
    after = [prediction(i, 0, 0, 1) for i in range(200)]
    found = paired_difference(after, before)
    for change in (found.top1, found.top5):
        assert (change.difference, change.p) == (gained / 2, 2 * 0.5**gained)
        assert (change.corrected, change.broken) == (gained, 0)
        assert change.decided == (gained == 6)
