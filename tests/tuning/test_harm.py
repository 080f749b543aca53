"""Do no harm: the rule as a table, and the numbers it reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from refocus.data.swaps import other_class_donors, swap_backgrounds
from refocus.objectives.registry import objective
from refocus.relevance.gae import explain
from refocus.tuning.harm import (
    CHANCE,
    SHARES,
    Candidate,
    candidates,
    chance_of_gain,
    choose,
    interpolate,
    relevance_loss,
    right_answers,
)

# (in-domain, corrected, broken, relevance loss; one swap an image) at shares 0, 0.5, 1 -> position
# chosen, tolerance 1 point
CASES = {
    "all better: the lowest loss": ([(90, 0, 0, 0.5), (90, 9, 1, 0.4), (91, 12, 1, 0.3)], 2),
    "too much accuracy lost at the end": (
        [(90, 0, 0, 0.5), (89, 9, 1, 0.4), (88.9, 12, 1, 0.3)],
        1,
    ),
    "lower loss but worse on swapped backgrounds": (
        [(90, 0, 0, 0.5), (90, 1, 5, 0.4), (90, 1, 9, 0.3)],
        0,
    ),
    "lower loss, swapped backgrounds within chance": (
        [(90, 0, 0, 0.5), (90, 4, 0, 0.4), (90, 6, 2, 0.3)],
        0,
    ),
    "just beyond chance": ([(90, 0, 0, 0.5), (90, 5, 0, 0.4), (90, 6, 2, 0.3)], 1),
    "the decision is better though the loss is not": (
        [(90, 0, 0, 0.5), (90, 9, 1, 0.6), (90, 12, 1, 0.7)],
        1,
    ),
    "nothing changed": ([(90, 0, 0, 0.5), (90, 0, 0, 0.5), (90, 0, 0, 0.5)], 0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rule(case: str) -> None:
    rows, expected = CASES[case]
    found = []
    for share, (in_domain, corrected, broken, loss) in zip((0.0, 0.5, 1.0), rows, strict=True):
        chance = chance_of_gain(torch.tensor([1.0] * corrected + [-1.0] * broken + [0.0] * 20))
        found.append(
            Candidate(share, in_domain, 50 + corrected - broken, corrected, broken, chance, loss)
        )
    chosen, finding = choose(found, 1.0)
    assert chosen == expected
    assert finding.startswith(
        "tuning did not help: the original weights are kept" if expected == 0 else "tuning helped"
    )


def test_interpolation_is_exact_at_the_ends_and_leaves_integers() -> None:
    start = {"w": torch.tensor([0.1, 0.2]), "n": torch.tensor(3)}
    end = {"w": torch.tensor([0.3, 1.0]), "n": torch.tensor(5)}
    assert torch.equal(interpolate(start, end, 0.0)["w"], start["w"])
    assert torch.equal(interpolate(start, end, 1.0)["w"], end["w"])
    middle = interpolate(start, end, 0.25)
    torch.testing.assert_close(middle["w"], torch.tensor([0.15, 0.4]))
    assert middle["n"] == 3


def checked(tiny: Callable[..., nn.Module]) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A model that is right on 30 of 40 images."""
    model = tiny()
    images, masks = torch.randn(40, 3, 32, 32), torch.zeros(40, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1
    labels = explain(model, images).targets.clone()
    labels[:10] = (labels[:10] + 1) % 4
    return model, images, masks, labels


def test_answers_and_loss_are_those_of_the_model(tiny: Callable[..., nn.Module]) -> None:
    model, images, masks, labels = checked(tiny)
    plain, swapped = right_answers(model, images, masks, labels)
    assert plain.tolist() == [False] * 10 + [True] * 30
    all_object = torch.ones_like(masks) - 1e-6  # then a swap changes nothing
    assert torch.equal(right_answers(model, images, all_object, labels)[1], plain.float())
    expected = torch.zeros(40)
    for seed in range(8):  # 40 images: 8 swaps each
        donors = other_class_donors(labels, seed=seed)
        moved = swap_backgrounds(images, masks, images[donors], masks[donors])
        expected += (explain(model, moved).targets == labels) / 8
    torch.testing.assert_close(swapped, expected)
    terms = objective("relevance", relevance=1.0, classification=0.0)
    assert relevance_loss(model, images, masks, labels) == pytest.approx(
        terms(model, images, masks, labels)["loss"].item(), rel=1e-4
    )


def test_candidates_are_paired_with_the_original(tiny: Callable[..., nn.Module]) -> None:
    model, images, masks, labels = checked(tiny)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    end = tiny().state_dict()
    found = candidates(model, start, end, images, masks, labels, tolerance=100.0)
    assert [c.share for c in found] == list(SHARES)
    assert (found[0].in_domain, found[0].corrected, found[0].broken, found[0].chance) == (
        75.0,
        0,
        0,
        1.0,
    )
    for c in found:
        assert (c.swapped > found[0].swapped) <= (c.corrected > 0)
        assert (c.relevance_loss is not None) == (c.share in (0, 1) or c.chance < CHANCE)
    assert found[-1].broken + found[-1].corrected > 0
    assert torch.equal(model.state_dict()["head.weight"], end["head.weight"])


def test_chance_by_hand() -> None:
    assert chance_of_gain(torch.zeros(4)) == 1.0
    assert chance_of_gain(torch.tensor([0.25])) == 0.5
    assert chance_of_gain(torch.tensor([1.0] * 5 + [0.0] * 9)) == pytest.approx(1 / 32)
    assert chance_of_gain(torch.tensor([1.0] * 6 + [-1.0] * 2)) == pytest.approx(
        (28 + 8 + 1) / 256
    )  # the sign test
    assert chance_of_gain(torch.tensor([1.0, 0.5, -0.25])) == pytest.approx(
        2 / 8
    )  # +-1 +-0.5 +-0.25: two of 8 reach 1.25
    assert chance_of_gain(-torch.ones(30)) > 0.99
