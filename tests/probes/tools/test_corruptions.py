"""Corruptions: pinned by golden images, the same for the same seed, and their mCE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refocus.errors import InputError
from refocus.probes.tools import corruptions
from tests.makers import ROOT

GOLDEN = (
    ROOT / "tests" / "golden" / "corruptions.png"
)  # rows: corruptions, columns: severities; scripts/golden_corruptions.py
SIDE = 64
PLAIN = {
    "brightness",
    "contrast",
    "defocus_blur",
    "jpeg_compression",
    "pixelate",
    "zoom_blur",
}  # without chance


def picture() -> np.ndarray:
    """Smooth colours, a disc and stripes."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    disc = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.08
    rows = np.stack([x, y, 0.5 + 0.3 * np.sin(40 * x)], axis=-1)
    return (255 * np.where(disc[..., None], [0.9, 0.3, 0.2], rows)).astype(np.uint8)


def grid() -> np.ndarray:
    rows = [
        np.concatenate(
            [
                corruptions.corrupted(picture(), name, severity, 7)
                for severity in corruptions.SEVERITIES
            ],
            axis=1,
        )
        for name in corruptions.ALEXNET
    ]
    return np.concatenate(rows)


def test_golden_images() -> None:
    golden, found = np.asarray(Image.open(GOLDEN)).astype(float), grid().astype(float)
    assert golden.shape == found.shape == (15 * SIDE, 5 * SIDE, 3)
    for row, name in enumerate(corruptions.ALEXNET):
        for column in range(5):
            cell = np.s_[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
            assert np.abs(golden[cell] - found[cell]).mean() < 1, (name, column + 1)


@pytest.mark.parametrize("name", corruptions.ALEXNET)
def test_severities_move_away_and_seeds_decide(name: str) -> None:
    plain = picture().astype(float)
    distances = [
        np.abs(corruptions.corrupted(picture(), name, s, 3).astype(float) - plain).mean()
        for s in corruptions.SEVERITIES
    ]
    assert min(distances) > 0.3
    assert distances[-1] > distances[0]
    state = np.random.get_state()[1].copy()
    first, second = (corruptions.corrupted(picture(), name, 3, 5) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(np.random.get_state()[1], state)  # other code's chance is untouched
    assert np.array_equal(first, corruptions.corrupted(picture(), name, 3, 6)) == (name in PLAIN)


def test_alexnet_itself_has_an_mce_of_100() -> None:
    assert corruptions.mean_corruption_error(dict(corruptions.ALEXNET)) == pytest.approx(100)
    half = {name: error / 2 for name, error in corruptions.ALEXNET.items()}
    assert corruptions.mean_corruption_error(half) == pytest.approx(50)
    assert corruptions.mean_corruption_error({"fog": 0.5}) is None
    assert corruptions.summary({name: [100.0] * 5 for name in corruptions.ALEXNET}) == {"mce": 0.0}


def test_published_folders_are_found_with_and_without_their_groups(tmp_path: Path) -> None:
    for number, name in enumerate(corruptions.ALEXNET):
        for severity in corruptions.SEVERITIES:
            (tmp_path / ("blur" if number % 2 else ".") / name / str(severity)).mkdir(parents=True)
    found = corruptions.published(tmp_path)
    assert found["fog"] == tmp_path / "blur" / "fog" or found["fog"] == tmp_path / "fog"
    assert list(found) == list(corruptions.ALEXNET)
    (found["snow"] / "3").rmdir()
    with pytest.raises(InputError, match="no folder 3"):
        corruptions.published(tmp_path)
    with pytest.raises(InputError, match="no folder gaussian_noise"):
        corruptions.published(tmp_path / "blur")
