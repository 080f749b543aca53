"""Shifts made from images and masks: what is kept, what is replaced, and that nothing leaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import refocus
from refocus.data import shifts
from refocus.data.folders import folder_samples
from refocus.evaluation.suites import open_suite
from refocus.records import Sample


@pytest.mark.parametrize("rule", ["same", "other", "next"])
def test_donors_follow_their_rule_and_the_seed(rule: str, image_folders: tuple[Path, Path]) -> None:
    samples = folder_samples(*image_folders)
    found = shifts.donors(samples, rule, seed=1)
    assert len(found) == 24
    order = ["ant", "bee", "cat", "dog"]
    for sample in samples:
        mine, theirs = sample.image.parent.name, found[sample.image].image.parent.name
        assert found[sample.image] is not sample
        assert (mine == theirs) == (rule == "same")
        if rule == "next":
            assert theirs == order[(order.index(mine) + 1) % 4]
    assert found == shifts.donors(samples, rule, seed=1)
    assert found != shifts.donors(samples, rule, seed=2)
    relabelled = [refocus.records.Sample(s.image, 3 - s.label, s.mask) for s in samples]
    donor_files = {image: donor.image for image, donor in found.items()}
    assert donor_files == {
        image: donor.image for image, donor in shifts.donors(relabelled, rule, seed=1).items()
    }


@pytest.mark.parametrize("rule", ["same", "other"])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_donors_are_drawn_from_lists_that_nobody_makes_for_each_image(
    rule: str, classes: int
) -> None:
    """As they always were, so that records of earlier versions can be continued."""
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 40).tolist()
    samples = [Sample(Path(f"c{label}", f"{at}.png"), label) for at, label in enumerate(labels)]
    found = shifts.donors(samples, rule, seed=3)
    for at, sample in enumerate(samples):
        dice = np.random.default_rng([3, ("none", "same", "other").index(rule), at])
        wanted = sample.label
        if rule == "other" and classes > 1:
            wanted = int(str(dice.choice([f"c{n}" for n in range(classes) if n != wanted]))[1:])
        pool = [s for s in samples if s.label == wanted and s is not sample]
        if rule == "other" and classes == 1:
            assert sample.image not in found
        else:
            assert found[sample.image] is pool[int(dice.integers(len(pool)))]


def test_a_class_of_one_has_no_donor_of_its_own(image_folders: tuple[Path, Path]) -> None:
    samples = folder_samples(*image_folders)
    few = [s for s in samples if s.image.parent.name != "ant" or s.image.stem == "0"]
    assert few[0].image not in shifts.donors(few, "same", seed=0)
    alone = [s for s in samples if s.image.parent.name == "ant"]
    with pytest.raises(refocus.InputError, match="shift mixed-rand: needs images of two classes"):
        shifts.shifts(alone, "mixed-rand", 0)
    with pytest.raises(refocus.InputError, match="shift mixed-same: needs two images of one class"):
        shifts.shifts(few[:1], "mixed-same", 0)


@pytest.mark.parametrize("kind", shifts.KINDS)
def test_every_kind_makes_an_image_of_the_same_size_and_no_kind_is_another(
    kind: str, image_folders: tuple[Path, Path]
) -> None:
    samples = folder_samples(*image_folders)
    noise = np.random.default_rng(0).integers(0, 255, (36, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(samples[7].image)  # an object that looks different when turned
    levels = shifts.shifts(samples, kind, 0, backgrounds=[samples[0].image])
    assert len(levels) == len(shifts.KINDS[kind].levels)
    pictures = {shift.level: shift(samples[7]) for shift, _ in levels}
    assert {p.size for p in pictures.values()} == {(40, 36)}
    assert len({p.tobytes() for p in pictures.values()}) == len(levels)
    assert levels[0][0](samples[7]).tobytes() == levels[0][0](samples[7]).tobytes()
    others = [other for other in shifts.KINDS if other != kind]
    first = levels[0][0](samples[7]).tobytes()
    for other in others:
        made = shifts.shifts(samples, other, 0, backgrounds=[samples[0].image])[0][0]
        assert made(samples[7]).tobytes() != first


class Brightness(nn.Module):
    """Knows the classes of `make_images` by the brightest thing in sight.

    The object alone tells the class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.num_classes = 4
        self.pretrained_cfg = {
            "input_size": (3, 36, 36),
            "crop_pct": 1.0,
            "mean": (0, 0, 0),
            "std": (1, 1, 1),
            "interpolation": "nearest",
            "label_names": ["ant", "bee", "cat", "dog"],
        }

    def forward(self, images: Tensor) -> Tensor:
        brightest = 255 * images.amax((1, 2, 3))
        return -(brightest[:, None] - torch.tensor([150.0, 180.0, 210.0, 240.0])).abs()


def test_what_the_shifts_say_of_a_model_that_sees_the_object_alone(
    image_folders: tuple[Path, Path],
) -> None:
    model = Brightness()
    images, masks = image_folders
    opened = open_suite("", images, model, masks=masks)

    def top1(kind: str) -> float:
        shift, samples = shifts.shifts(opened.samples, kind, 0)[0]
        tests = refocus.evaluation.suites.TestSet(opened.root, samples, opened.transform, shift)
        return float(np.mean([p.right for p in refocus.evaluate(model, tests).predictions]))

    for kind in ("only-fg", "mixed-same", "mixed-rand", "mixed-next"):
        assert top1(kind) == 1, kind
    for kind in ("only-bg", "no-fg", "outline"):
        assert top1(kind) == 0.25, kind  # chance: everything looks like the first class


def test_real_backgrounds_come_from_the_folder(
    image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    samples = folder_samples(*image_folders)
    folder = tmp_path / "grounds"
    (folder / "none").mkdir(parents=True)
    with pytest.raises(refocus.InputError, match=r"backgrounds .*none"):
        shifts.grounds(folder / "none")
    (folder / "none").rmdir()
    for number in range(3):
        Image.new("RGB", (50, 40), (0, 0, 80 * number)).save(folder / f"{number}.png")
    found = shifts.grounds(folder)
    assert [path.name for path in found] == ["0.png", "1.png", "2.png"]
    ((shift, some),) = shifts.shifts(samples, "real", 0, backgrounds=found)
    assert len(some) == 24
    blue = {np.asarray(shift(s))[0, 0, 2] for s in samples}
    assert blue == {0, 80, 160}
    assert shifts.grounds(None) == []
    with pytest.raises(refocus.InputError, match="real: needs an image with a mask, and backgr"):
        shifts.shifts(samples, "real", 0)


def test_a_background_of_one_kind_is_not_that_of_another(image_folders: tuple[Path, Path]) -> None:
    """Where the photographs of `real` are the images themselves: they stay as they are."""
    samples = folder_samples(*image_folders)[::6]
    own, other = samples[0], samples[1]
    real = shifts.Shift("real", "", {own.image: Sample(other.image, -1)})
    mixed = shifts.Shift("mixed-rand", "", {own.image: other})
    for order in ((real, mixed), (mixed, real)):
        opened = shifts.Opened(own)
        for shift in order:
            assert shift.of(opened).tobytes() == shift(own).tobytes(), shift.kind
    assert real(own).tobytes() != mixed(own).tobytes()


def test_kinds_are_read_from_a_list() -> None:
    assert shifts.kinds(["only-fg", "size", "only-fg"]) == ["only-fg", "size"]
    assert shifts.kinds(["all"], real=True) == list(shifts.KINDS)
    assert shifts.kinds(("all",)) == [name for name in shifts.KINDS if name != "real"]
    with pytest.raises(
        refocus.InputError, match="kinds blur: no such shift; choose one of all, only-fg"
    ):
        shifts.kinds(["blur"])
