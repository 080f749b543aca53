"""What to measure: what is not legal is said in one line, before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from refocus import InputError
from refocus.evaluation.plan import Plan, refuse_unused
from refocus.evaluation.prove import evaluate_suites


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"suites": {}}, "suites: empty"),
        ({"suites": "images"}, "suites images: must be names with a path each"),
        ({"suites": {"a": " "}}, "suites"),
        ({"shifts": ("melted",)}, "shifts melted: no such shift"),
        ({"protocol": "mine"}, "protocol mine: must be standard, paper or both"),
        ({"most": 0}, "most 0: must be a whole number of at least 2"),
        ({"mask_score": float("nan")}, "mask_score nan: must be a number between 0 and 1"),
        ({"batch_size": 0}, "batch_size 0: must be a whole number of at least 1"),
        ({"faithful": True}, "faithful True: must be a whole number"),
        ({"workers": -1}, "workers -1: must be a whole number between 0 and 256"),
    ],
)
def test_what_is_not_legal(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Plan(**{"suites": {"a": "images"}, **given})
    assert "\n" not in str(caught.value)


def test_paths_are_taken_as_text_or_path() -> None:
    plan = Plan({"a": Path("images"), "b": "~/more"}, {"a": Path("masks")})
    assert plan.path("a") == Path("images")
    assert plan.path("b") == Path.home() / "more"
    assert plan.masks_of("a") == Path("masks")
    assert plan.masks_of("b") is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"most": 4}, "^most 4: only with masks NAME=PATH$"),
        ({"faithful": 8}, "^faithful 8: only with masks NAME=PATH, or with suites imagenet-seg"),
        ({"mask_score": 0.0}, "^mask_score 0.0: only with masks"),
        ({"mask_polarity": "keep"}, "^mask_polarity keep: only with masks"),
        ({"backgrounds": "b"}, "^backgrounds b: only with shifts real$"),
        ({"backgrounds": "b", "masks": {"a": "m"}, "shifts": ("size",)}, "backgrounds b: only"),
        ({"most": 4, "masks": {"a": "m"}}, ""),
        ({"faithful": 8, "suites": {"imagenet-segmentation": "f.mat"}}, ""),
        ({"backgrounds": "b", "masks": {"a": "m"}, "shifts": ("all",)}, ""),
    ],
)
def test_options_that_would_decide_nothing_are_refused(given: dict[str, Any], message: str) -> None:
    plan = Plan(**{"suites": {"a": "images"}, **given})
    if not message:
        refuse_unused(plan)
        return
    with pytest.raises(InputError, match=message):
        refuse_unused(plan)


@pytest.mark.parametrize("name", ["suites a", "masks a", "backgrounds"])
def test_results_may_not_lie_in_what_is_read(
    name: str, model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = image_folders
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    Image.new("RGB", (9, 9)).save(scenes / "0.png")
    plan = Plan({"a": images}, {"a": masks}, ("real",), scenes, quiet=True)
    place = {"suites a": images, "masks a": masks, "backgrounds": scenes}[name]
    with pytest.raises(InputError, match=f"lies inside {name} "):
        evaluate_suites(model_folder, plan, place / "out")
    assert not (place / "out").exists()
