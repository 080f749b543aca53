"""Every run of a study is looked at before the first one starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refocus import InputError
from refocus.studies import datasets, jobs, registry
from refocus.studies.checks import check
from refocus.studies.order import Order
from refocus.studies.settings import StudySettings
from refocus.studies.start import study
from tests.studies.makers import miniature, only_imagenet


def order(toml: Path, name: str = "figure7", **common: Any) -> Order:
    ground = datasets.narrowed(datasets.read_toml(only_imagenet(toml)), ["ViT-B"])
    return Order(name, registry.study(name), ground, toml.parent / "out", common)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [4, 5])
def test_figure7_trains_on_the_classes_that_have_masks(tmp_path: Path, classes: int) -> None:
    """8 classes with masks of 10: its last row has 8 classes, whatever the published one has.

    Twice the published number, as in ImageNet, were 10 classes, which are not there.
    """
    figure = order(miniature(tmp_path, classes=10, masked=8), classes=classes)
    titles = [variant.title for variant in figure.variants]
    counts = [1, 2, 4, 6, 8]
    said = ["1 class" if n == 1 else f"{n} classes" for n in counts if n != classes]
    assert titles[-len(said) :] == said
    check(figure)  # each row finds its classes, masks and validation images


def test_the_papers_own_tree_has_919_classes(tmp_path: Path) -> None:
    toml = miniature(tmp_path)
    (tmp_path / "train-images").rename(tmp_path / "elsewhere")  # a dry run before they are here
    figure = order(toml)
    assert figure.classes == 919
    assert [v.title for v in figure.variants][-5:] == [
        f"{n} classes" for n in (92, 230, 460, 689, 919)
    ]


def test_a_last_run_that_cannot_be_done_stops_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All classes trained on with every image of them: nothing is left to validate on."""
    started: list[str] = []
    monkeypatch.setattr(jobs, "tune", lambda recipe, *_args, **_kw: started.append(recipe))
    toml = only_imagenet(miniature(tmp_path, count=3))
    settings = StudySettings(data=str(toml), models=("ViT-B",), classes=2, device="cpu")
    with pytest.raises(InputError, match=r"no image is left to validate on.*row '4 classes'"):
        study("figure7", tmp_path / "out", settings, progress=False)
    assert not started
    assert not (tmp_path / "out").exists()


def test_a_suite_that_cannot_be_opened_stops_the_first_run(tmp_path: Path) -> None:
    toml = miniature(tmp_path)
    (tmp_path / "imagenet-images" / "n01440764").rename(tmp_path / "imagenet-images" / "nobody")
    with pytest.raises(InputError, match="nobody"):
        check(order(toml, "table1", classes=2))


def test_a_class_with_too_few_images_is_told_to_get_more_not_of_options_that_there_are_not(
    tmp_path: Path,
) -> None:
    toml = only_imagenet(miniature(tmp_path, count=1))
    with pytest.raises(InputError) as refusal:
        check(order(toml, "table1", classes=2))
    said = refusal.value.marked
    assert "has only 1 usable images for training, and each class needs 3; add images" in said
    assert "‹" not in said
