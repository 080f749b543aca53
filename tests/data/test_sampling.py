"""The few-shot selection."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import refocus
from refocus.data import sampling, shifts
from refocus.data.folders import scan
from refocus.data.sampling import pick_classes, pick_shots, spread, usable
from refocus.errors import InputError
from tests.makers import NAMES, Build


def test_class_and_shot_selection_follow_their_seeds(
    tiny: Build, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    samples = scan(images, tiny(), masks=masks)
    assert pick_classes(samples, None, None) == [0, 1]
    assert pick_classes(samples, 3, None) == [0, 1, 2]
    assert pick_classes(samples, 2, 1) == pick_classes(samples, 2, 1)
    assert {tuple(pick_classes(samples, 2, seed)) for seed in range(8)} != {(0, 1)}
    with pytest.raises(InputError, match="classes 9: the image folder has only 4"):
        pick_classes(samples, 9, None)
    shots = pick_shots(samples, [0, 2], 3, seed=0, skip_bad=False)
    assert [s.label for s in shots] == [0, 0, 0, 2, 2, 2]
    assert len(set(shots)) == 6
    assert shots == pick_shots(samples, [0, 2], 3, seed=0, skip_bad=False)
    assert shots != pick_shots(samples, [0, 2], 3, seed=1, skip_bad=False)
    with pytest.raises(InputError, match="shots 7: class 'ant' has only 6 usable images"):
        pick_shots(samples, [0], 7, seed=0, skip_bad=False)
    assert [
        s.label for s in pick_shots(samples, [0, 2], 7, seed=0, skip_bad=False, fewer=True)
    ].count(0) == 6
    assert (
        sorted(s.label for s in spread(samples, 6, 0, skip_bad=False))
        in ([0, 0, 1, 1, 2, 3], [0, 1, 2, 2, 3, 3])
        or len({s.label for s in spread(samples, 6, 0, skip_bad=False)}) == 4
    )


def test_bad_images_stop_the_selection_or_are_left_out_by_name(
    tiny: Build, image_folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    images, masks = image_folders
    (masks / "ant" / "0.png").unlink()
    Image.new("L", (40, 36)).save(masks / "ant" / "1.png")
    (images / "ant" / "2.png").write_bytes((images / "ant" / "2.png").read_bytes()[:100])
    samples = [s for s in scan(images, tiny(), masks=masks) if s.label == 0]
    for position, message in enumerate(
        [
            r"0\.png: image without a mask",
            r"1\.png: the mask is all background",
            r"2\.png: cannot be read",
        ]
    ):
        with pytest.raises(InputError, match=f"{message}.*skip_bad"):
            usable(samples[position:], 3, skip_bad=False)
    assert [s.image.name for s in usable(samples, 3, skip_bad=True)] == ["3.png", "4.png", "5.png"]
    assert caplog.text.count("left out") == 3


def test_at_most_so_many_images_are_spread_over_the_classes(
    image_folders: tuple[Path, Path],
) -> None:
    samples = refocus.data.folders.folder_samples(*image_folders)
    chosen = sampling.chosen(samples, 10, 0)
    assert sorted(sum(path.parent.name == name for path in chosen) for name in NAMES) == [
        2,
        2,
        3,
        3,
    ]
    firsts = {next(iter(sampling.chosen(samples, 1, seed))).parent.name for seed in range(20)}
    assert len(firsts) > 1  # not always the first class of the listing
    assert len(sampling.chosen(samples, None, 0)) == len(sampling.chosen(samples, 99, 0)) == 24
    one_each = sampling.chosen(samples, 4, 0)  # all others still lend their backgrounds
    (shift, some), *_ = shifts.shifts(samples, "mixed-same", 0, one_each)
    assert {s.image for s in some} == one_each
    everyone, _ = shifts.shifts(samples, "mixed-same", 0)[0]
    assert all(shift(s).tobytes() == everyone(s).tobytes() for s in some)
