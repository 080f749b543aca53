"""Do no harm: the rule as a table, and the numbers it reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from refocus.harm import choose, harm_check, interpolate
from refocus.objectives import objective
from refocus.relevance import explain

CASES = {  # (in-domain, swapped, relevance loss) at shares 0, 0.5, 1 -> position chosen with a tolerance of 1 point
    "all better: the lowest loss": ([(90, 50, 0.5), (90, 55, 0.4), (91, 60, 0.3)], 2),
    "too much accuracy lost at the end": ([(90, 50, 0.5), (89, 55, 0.4), (88.9, 60, 0.3)], 1),
    "lower loss but worse on swapped backgrounds": ([(90, 50, 0.5), (90, 49, 0.4), (90, 48, 0.3)], 0),
    "better accuracy but a higher loss": ([(90, 50, 0.5), (92, 55, 0.6), (92, 55, 0.7)], 0),
    "a gain of less than one percent of the loss is none": ([(90, 50, 0.5), (90, 50, 0.4999), (90, 50, 0.496)], 0),
    "a tie goes to the original": ([(90, 50, 0.5), (90, 50, 0.5), (90, 50, 0.5)], 0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rule(case: str) -> None:
    rows, expected = CASES[case]
    candidates = [
        {"share": s, "in_domain": a, "swapped": b, "relevance_loss": c} for s, (a, b, c) in zip((0.0, 0.5, 1.0), rows, strict=True)
    ]
    chosen, finding = choose(candidates, 1.0)
    assert chosen == expected
    assert finding.startswith("tuning did not help: the original weights are kept" if expected == 0 else "tuning helped")


def test_interpolation_is_exact_at_the_ends_and_leaves_integers() -> None:
    start = {"w": torch.tensor([0.1, 0.2]), "n": torch.tensor(3)}
    end = {"w": torch.tensor([0.3, 1.0]), "n": torch.tensor(5)}
    assert torch.equal(interpolate(start, end, 0.0)["w"], start["w"])
    assert torch.equal(interpolate(start, end, 1.0)["w"], end["w"])
    middle = interpolate(start, end, 0.25)
    torch.testing.assert_close(middle["w"], torch.tensor([0.15, 0.4]))
    assert middle["n"] == 3


def test_harm_check_reads_what_the_model_does(tiny: Callable[..., nn.Module]) -> None:
    model = tiny()
    images, masks = torch.randn(40, 3, 32, 32), torch.zeros(40, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1
    labels = explain(model, images).targets.clone()
    labels[:10] = (labels[:10] + 1) % 4
    found = harm_check(model, images, masks, labels)
    assert found["in_domain"] == 75.0
    terms = objective("relevance", relevance=1.0, classification=0.0)
    assert found["relevance_loss"] == pytest.approx(terms(model, images, masks, labels)["loss"].item(), rel=1e-4)
    whole = harm_check(model, images, torch.ones_like(masks) - 1e-6, labels)  # all object: a swap changes nothing
    assert whole["swapped"] == 75.0
