"""Figure 1: which maps are those of the background, which are sparse, and how they are counted."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest
import torch

from refocus.cli import main
from refocus.studies import salience
from refocus.studies.salience import Look
from tests.studies.makers import RUN, options


def test_half_of_the_objects_relevance() -> None:
    mask = torch.zeros(140, 140)
    mask[:100, :100] = 1  # 100 of the 14 x 14 patches
    patches = torch.ones(14, 14)
    assert salience.half_share(patches, mask) == 0.5
    patches[0, 0] = patches[5, 5] = 48.0  # on the object: 98 ones and these; 97 are half of 194
    assert salience.half_share(patches, mask) == pytest.approx(0.03)
    patches[12, 12] = 1e6  # of the background's relevance it knows nothing
    assert salience.half_share(patches, mask) == pytest.approx(0.03)
    assert salience.half_share(patches, torch.zeros(140, 140)) is None
    assert salience.half_share(torch.zeros(14, 14), mask) is None


def test_the_objects_patches_are_those_that_the_model_sees_it_in() -> None:
    mask, patches = torch.zeros(38, 38), torch.ones(4, 4)
    mask[:, 24:32] = 1  # the last column of patches of 8; the other 6 pixels are in none
    patches[:2, 3] = 3.0
    assert salience.half_share(patches, mask, (32, 32)) == 0.5
    assert salience.half_share(patches, mask) is None  # spread over all 38, none lies on it


@pytest.mark.parametrize(
    ("background", "half", "elsewhere", "sparse"),
    [
        (0.91, 0.5, True, False),
        (0.90, 0.5, False, False),
        (0.3, 0.04, False, True),
        (0.6, 0.04, False, False),  # most lies on the background
        (0.3, 0.05, False, False),
        (None, None, False, False),  # a dead map
    ],
)
def test_kinds_of_maps(
    background: float | None, half: float | None, elsewhere: bool, sparse: bool
) -> None:
    look = Look("a", background, half, 0.5)
    assert (look.elsewhere, look.sparse) == (elsewhere, sparse)


def test_images_are_counted_and_the_surest_are_shown(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salience, "BACKGROUND", 0.5)  # what a random model reaches
    monkeypatch.setattr(salience, "SURE", 0.0)
    result = RUN.invoke(main.app, ["study", "figure1", *options(place)])
    assert result.exit_code == 0, result.exception
    out = place / "out"
    results = json.loads((out / "figure1.json").read_text())
    (found,) = results["salience"]
    records = out / "records" / "model" / "original" / "salience.jsonl"
    looks = [json.loads(line) for line in records.read_text().splitlines()]
    over = [look for look in looks if look["background"] > 0.5]
    assert found["background"]["n"] == len(looks) == 4  # --maps 4
    assert found["background"]["value"] == 100 * len(over) / 4 > 0
    assert found["sure"] == len(over)
    surest = sorted(over, key=lambda look: -look["confidence"])[:3]
    page = (out / "figure1.html").read_text()
    assert results["text"].strip() in html.unescape(page)  # the answer in words
    shown = [page.index(look["image"]) for look in surest]
    assert shown == sorted(shown)
    assert page.count("on the background; half of the rest on") == 2 * len(surest)  # and its alt
