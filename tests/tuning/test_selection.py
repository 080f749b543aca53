"""Which images are trained on, validated on and checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import refocus
from refocus import Recipe
from refocus.tuning import selection


def test_no_validation_or_check_image_was_trained_on(recipe: Recipe) -> None:
    chosen = selection.choose_samples(recipe, refocus.load(recipe.model))
    assert [s.label for s in chosen.train] == [0] * 4 + [1] * 4
    assert {s.label for s in chosen.select} == {2, 3}
    assert {s.label for s in chosen.check} == {0, 1, 2, 3}
    assert not set(chosen.train) & (set(chosen.select) | set(chosen.check))
    assert len(chosen.check) == 24 - 8
    assert (
        len(
            selection.choose_samples(
                replace(recipe, check_images=6), refocus.load(recipe.model)
            ).check
        )
        == 6
    )


def test_a_separate_validation_folder(recipe: Recipe, tmp_path: Path) -> None:
    from tests.makers import make_images

    images, masks = make_images(tmp_path / "val", count=2, seed=1)
    model = refocus.load(recipe.model)
    chosen = selection.choose_samples(replace(recipe, val=str(images), val_masks=str(masks)), model)
    assert all(images in s.image.parents for s in chosen.check)
    assert {s.label for s in chosen.select} == {2, 3}
    with pytest.raises(refocus.InputError, match="val_masks: missing"):
        selection.choose_samples(replace(recipe, val=str(images)), model)
    with pytest.raises(refocus.InputError, match="val is missing"):
        selection.choose_samples(replace(recipe, val_masks=str(masks)), model)
    itself = selection.choose_samples(
        replace(recipe, val=recipe.images, val_masks=recipe.masks), model
    )
    assert not {s.image for s in itself.train} & {s.image for s in itself.check}
