"""The score of a mask: what lowers it, and that it tells good masks from bad ones."""

from __future__ import annotations

import numpy as np
import pytest

from refocus.masks import quality


def square(side: int = 40, at: tuple[slice, slice] = (slice(10, 25), slice(10, 25))) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[at] = True
    return mask


def test_a_plain_object_has_full_score_and_its_measures() -> None:
    found = quality.assess(square())
    assert found.score == 1
    assert found.doubts == ()
    assert (found.area, found.border, found.parts, found.largest) == (225 / 1600, 0, 1, 1)


def test_edges_lower_the_score_too() -> None:
    found = quality.assess(square(), agreement=0.8, edges=0.5)
    assert found.score == pytest.approx(0.4)
    assert found.doubts == ("does not follow the image's edges",)


def test_agreement_is_the_score_of_a_plain_object() -> None:
    found = quality.assess(square(), agreement=0.4)
    assert found.score == pytest.approx(0.4)
    assert found.doubts == ("two readings disagree",)


@pytest.mark.parametrize(
    ("mask", "doubt"),
    [
        (square(at=(slice(5, 7), slice(5, 8))), "very small"),
        (square(at=(slice(1, 39), slice(1, 39))), "covers most of the image"),
        (square(at=(slice(0, 40), slice(0, 20))), "touches much of the border"),
        (square(at=(slice(0, 40, 3), slice(5, 20))), "is in several pieces"),
        (np.zeros((9, 9), bool), "empty"),
        (np.ones((9, 9), bool), "covers the whole image"),
    ],
)
def test_each_doubt_lowers_the_score(mask: np.ndarray, doubt: str) -> None:
    found = quality.assess(mask)
    assert doubt in found.doubts
    assert found.score < 1
