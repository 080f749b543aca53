"""The score of a mask: what lowers it, and that it tells good masks from bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from refocus import InputError
from refocus.masks import quality, trust
from refocus.masks.discovery import overlap


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
    assert found.doubts == ("two sources disagree",)


@pytest.mark.parametrize(
    ("mask", "doubt"),
    [
        (square(at=(slice(5, 7), slice(5, 8))), "very small"),
        (square(at=(slice(1, 39), slice(1, 39))), "covers most of the image"),
        (square(at=(slice(0, 40), slice(0, 20))), "touches much of the border"),
        (square(at=(slice(0, 40, 3), slice(5, 20))), "falls into parts"),
        (np.zeros((9, 9), bool), "empty"),
        (np.ones((9, 9), bool), "covers the whole image"),
    ],
)
def test_each_doubt_lowers_the_score(mask: np.ndarray, doubt: str) -> None:
    found = quality.assess(mask)
    assert doubt in found.doubts
    assert found.score < 1


def test_overlap_of_known_sets() -> None:
    a, b = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert overlap(a, b) == pytest.approx(1 / 3)
    assert overlap(a & b & ~a, b & ~b) == 1


def test_scores_of_a_folder(tmp_path: Path) -> None:
    assert trust.scores(tmp_path) == {}
    (tmp_path / "masks.json").write_text(
        json.dumps({"masks": [{"mask": "cat/a.b.png", "score": 0.25, "digest": "0"}]})
    )
    assert trust.scores(tmp_path) == {"cat/a.b": 0.25}
    (tmp_path / "masks.json").write_text('{"masks": [{"mask": "cat/a.png"}]}')
    with pytest.raises(InputError, match=r"masks\.json: not a record"):
        trust.scores(tmp_path)
