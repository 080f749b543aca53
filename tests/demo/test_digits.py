"""The digits of the demo."""

from __future__ import annotations

import numpy as np
import pytest

from refocus.demo import digits


def test_composites_have_exact_masks_and_follow_the_generator() -> None:
    labels = np.arange(10)
    images, masks = digits.draw(
        labels, np.random.default_rng(0), split="test", biased=True, faded=False
    )
    again, _ = digits.draw(labels, np.random.default_rng(0), split="test", biased=True, faded=False)
    assert images.shape == (10, 40, 40, 3)
    assert masks.shape == (10, 40, 40)
    np.testing.assert_array_equal(images, again)
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images[masks > 0.99] > 0.98).all()  # the digit is white ...
    assert images[masks == 0].max() <= 0.5 + 1e-6  # ... and the texture darkened


def test_biased_digits_stand_on_their_own_texture_and_shuffled_ones_on_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[int] = []
    genuine = digits.composite

    def spy(
        digit: np.ndarray, texture: int, rng: np.random.Generator, *, fade: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        used.append(texture)
        return genuine(digit, texture, rng, fade=fade)

    monkeypatch.setattr(digits, "composite", spy)
    labels = np.repeat(np.arange(10), 200)
    digits.draw(labels, np.random.default_rng(0), split="train", biased=True, faded=False)
    assert used == labels.tolist()
    used.clear()
    digits.draw(labels, np.random.default_rng(0), split="train", biased=False, faded=False)
    for label in range(10):
        assert set(np.array(used)[labels == label]) == set(range(10)) - {label}


def test_fading_takes_contrast_away() -> None:
    rng = np.random.default_rng(0)
    digit = digits.digits("train")[0][0]
    image, mask = digits.composite(digit, 0, rng, fade=1.0)
    assert image.max() <= 0.5
    assert mask.max() > 0.9


def test_splits_share_no_digit() -> None:
    train, test = ({d.tobytes() for d in digits.digits(split)[0]} for split in ("train", "test"))
    assert len(digits.digits("train")[0]) + len(digits.digits("test")[0]) == 1797
    assert not train & test
