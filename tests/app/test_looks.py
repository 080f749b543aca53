"""A look at an image: maps, shares, and other backgrounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refocus.app import looks
from refocus.errors import InputError
from tests.makers import Build


def test_a_look_is_the_models_own(tiny: Build, image_folders: tuple[Path, Path]) -> None:
    from refocus.data.transforms import eval_image
    from refocus.relevance.gae import explain

    model, image = tiny(), Image.open(image_folders[0] / "cat" / "0.png")
    seen = looks.look(model, image)
    found = explain(model, eval_image(model)(image)[None])
    best = int(found.targets[0])
    assert seen.explained == next(iter(seen.shares)) == ["ant", "bee", "cat", "dog"][best]
    assert seen.shares[seen.explained] == pytest.approx(
        float(found.logits[0].softmax(0)[best]), abs=1e-6
    )
    np.testing.assert_allclose(seen.relevance, found.relevance[0], atol=1e-6)
    assert seen.inside is None
    asked = looks.look(model, image, "dog")
    np.testing.assert_allclose(
        asked.relevance, explain(model, eval_image(model)(image)[None], 3).relevance[0], atol=1e-6
    )
    with pytest.raises(InputError, match="does not know"):
        looks.look(model, image, "zebra")


def test_relevance_on_the_object_and_beside_it_adds_up(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    model, image = tiny(), Image.open(image_folders[0] / "cat" / "0.png")
    mask = torch.zeros(1, 36, 40)
    mask[:, :, :20] = 1
    parts = [
        looks.look(model, image, mask=m).inside for m in (mask, 1 - mask, torch.ones(1, 36, 40))
    ]
    assert parts[0] + parts[1] == pytest.approx(1, abs=1e-3)
    assert parts[2] == pytest.approx(1)


def test_threshold_and_opacity() -> None:
    picture = np.full((4, 4, 3), 100, np.uint8)
    seen = looks.Look(picture, np.linspace(0, 1, 16).reshape(4, 4), {}, "x")
    assert np.array_equal(looks.drawn(seen, 0.0, 0.0), picture)
    half = looks.drawn(seen, 0.5, 0.6)
    assert np.array_equal(half[seen.relevance < 0.5], picture[seen.relevance < 0.5])
    assert (half[seen.relevance >= 0.5] != 100).any(-1).all()


def test_the_object_stays_when_the_background_goes(image_folders: tuple[Path, Path]) -> None:
    image = Image.open(image_folders[0] / "cat" / "0.png")
    mask = torch.zeros(1, 36, 40)
    mask[:, 10:26, 10:26] = 1
    other = Image.new("RGB", (80, 60), (0, 0, 255))
    swapped = np.asarray(looks.on_another_background(image, mask, other))
    assert np.array_equal(swapped[14:22, 14:22], np.asarray(image)[14:22, 14:22])
    assert np.array_equal(swapped[0, 0], [0, 0, 255])
    blurred = np.asarray(looks.on_another_background(image, mask, None)).astype(float)
    assert np.array_equal(blurred[14:22, 14:22], np.asarray(image)[14:22, 14:22])
    assert blurred[:6].std() < 0.5 * np.asarray(image)[:6].std()
