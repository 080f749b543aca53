"""The demo in small: its data, its files and its numbers' names. `make demo` runs it whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refocus import demo, digits
from refocus.metrics import accuracy


def test_composites_have_exact_masks_and_follow_the_generator() -> None:
    labels = np.arange(10)
    images, masks = digits.draw(labels, np.random.default_rng(0), split="test", biased=True, faded=False)
    again, _ = digits.draw(labels, np.random.default_rng(0), split="test", biased=True, faded=False)
    assert images.shape == (10, 40, 40, 3)
    assert masks.shape == (10, 40, 40)
    np.testing.assert_array_equal(images, again)
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images[masks > 0.99] > 0.98).all()  # the digit is white ...
    assert images[masks == 0].max() <= 0.5 + 1e-6  # ... and the texture darkened


def test_biased_pairs_share_a_texture_and_shuffled_ones_never_do() -> None:
    labels = np.full(40, 1)  # grass: grey photographs would hide a wrong colour, so test against chelsea's channels too
    for label in (1, 5):
        own, masks = digits.draw(np.full(40, label), np.random.default_rng(0), split="train", biased=True, faded=False)
        other, other_masks = digits.draw(np.full(40, label), np.random.default_rng(0), split="train", biased=False, faded=False)
        means = [
            np.concatenate([i[m == 0] for i, m in zip(*pair, strict=True)]).mean(0) for pair in ((own, masks), (other, other_masks))
        ]
        photo = digits.textures()[label].mean((0, 1))
        assert np.abs(means[0] - photo).max() < 0.06
    assert len(labels) == 40


def test_fading_takes_contrast_away() -> None:
    rng = np.random.default_rng(0)
    digit = digits.digits("train")[0][0]
    image, mask = digits.composite(digit, 0, rng, fade=1.0)
    assert image.max() <= 0.5
    assert mask.max() > 0.9


def test_splits_share_no_digit() -> None:
    train, test = (digits.digits(split)[0] for split in ("train", "test"))
    assert len(train) + len(test) == 1797


def test_the_packaged_weights_know_digits_on_any_texture() -> None:
    """The start of the story: no shortcut yet. scripts/train_demo_weights.py printed 98.5 % on 1000 images."""
    model = demo.pretrained()
    labels = np.arange(200) % 10
    for biased in (True, False):
        images, _ = digits.draw(labels, np.random.default_rng(3), split="test", biased=biased, faded=False)
        with torch.inference_mode():
            guess = model((torch.from_numpy(images).permute(0, 3, 1, 2) - 0.5) / 0.5).argmax(1).numpy()
        assert (guess == labels).mean() > 0.93


@pytest.mark.slow
def test_the_story_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PER_CLASS", {"tune": 5, "in_domain": 4, "shuffled": 6})
    genuine = demo.plant_shortcut
    monkeypatch.setattr(demo, "plant_shortcut", lambda seed, progress: genuine(seed, epochs=1, size=320, progress=progress))
    monkeypatch.setattr(demo, "ROWS", {name: {**row, "epochs": 2} for name, row in demo.ROWS.items()})
    results = demo.run(tmp_path / "demo", seed=1, progress=False)
    assert list(results) == ["biased", "finetune", "relevance", "refocus"]
    for row in results.values():
        assert list(row) == ["in_domain", "shuffled", "trained", "untrained", "background_share"]
        assert row["shuffled"] == pytest.approx((row["trained"] + row["untrained"]) / 2)
        assert 0 <= row["background_share"] <= 1
    assert json.loads((tmp_path / "demo" / "results.json").read_text()) == results
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "")  # self-contained
    assert f"{results['refocus']['untrained']:.1f}" in page
    with Image.open(tmp_path / "demo" / "maps.png") as picture:
        assert picture.width > 800
    assert len(list((tmp_path / "demo" / "data" / "shuffled" / "masks").rglob("*.png"))) == 60
    assert accuracy([], [])["n"] == 0
