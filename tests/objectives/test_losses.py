"""Each equation against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from refocus.objectives import losses

R = torch.tensor([[[0.5, 1.0], [0.0, 0.25]]])
S = torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])


def test_background_is_the_mean_square_outside_over_all_pixels() -> None:
    assert losses.background(R, S).item() == pytest.approx((0 + 1.0 + 0 + 0.125**2) / 4)


def test_foreground_is_the_mean_square_distance_to_the_mask() -> None:
    assert losses.foreground(R, S).item() == pytest.approx(
        (0.5**2 + 0 + 0 + (0.125 - 0.5) ** 2) / 4
    )


def test_confidence_takes_the_prediction_as_label() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert losses.confidence(logits).item() == pytest.approx(expected)
    assert losses.confidence(logits, 0.5).item() == pytest.approx(
        (math.log(1 + math.exp(-4)) + math.log(1 + math.exp(-2))) / 2
    )


def test_classification_over_the_tuned_classes_leaves_the_other_logits_alone() -> None:
    logits = torch.tensor([[1.0, 3.0, 9.0], [0.0, 2.0, 9.0]], requires_grad=True)
    labels = torch.tensor([0, 1])
    loss = losses.seen_classification(logits, labels, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(
        (math.log(1 + math.exp(2)) + math.log(1 + math.exp(-2))) / 2
    )
    loss.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[:, 2], torch.zeros(2))
    everything = losses.seen_classification(logits, labels, torch.tensor([0, 1, 2]))
    assert everything.item() == pytest.approx(losses.classification(logits, labels).item())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_binary_relevance_takes_masks_of_another_float_type(kind: torch.dtype) -> None:
    expected = losses.binary_relevance(R, S)
    torch.testing.assert_close(losses.binary_relevance(R, S.to(kind)), expected)


def test_outside_energy_is_a_share_and_ignores_scale() -> None:
    expected = 1 - (0.5 + 0.125) / 1.75
    assert losses.outside_energy(R, S).item() == pytest.approx(expected)
    assert losses.outside_energy(7 * R, S).item() == pytest.approx(expected)
    assert (
        losses.outside_energy(torch.zeros_like(R), S).item() == 1
    )  # no relevance at all is no relevance inside


def test_the_published_complement_leaves_soft_values() -> None:
    mask = torch.tensor([[[1.0, 0.0, 0.25]]])
    assert losses.published_complement(mask).tolist() == [[[0.0, 1.0, 0.25]]]
    relevance = torch.tensor([[[0.5, 0.5, 1.0]]])
    published = losses.background(relevance, mask, losses.published_complement(mask))
    assert published.item() == pytest.approx((0 + 0.5**2 + 0.25**2) / 3)
