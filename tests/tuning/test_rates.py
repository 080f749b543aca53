"""The search for a learning rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refocus import load
from refocus.tuning import course, rates, tune
from refocus.tuning.selection import choose_samples
from tests.tuning.makers import quick_recipe


@pytest.mark.slow
def test_auto_takes_the_highest_rate_that_passes_and_keeps_what_it_tried(
    model_folder: Path, image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    order = quick_recipe(
        model_folder, image_folders, objective="finetune", lr="auto", lr_range=(1e-6, 10.0)
    )
    results = tune.tune(order, run, progress=False)
    kept = json.loads((run / "rates.json").read_text())
    assert results.lr == kept["lr"] == kept["tried"][-1]["lr"]
    assert [t["lr"] for t in kept["tried"]] == rates.grid(1e-6, 10.0)[: len(kept["tried"])]
    assert len(kept["tried"]) > 1  # a rate of 10 ruins any model
    assert [t["passed"] for t in kept["tried"]] == [False] * (len(kept["tried"]) - 1) + [
        kept["passed"]
    ]


def test_a_try_is_compared_with_the_original_in_the_same_number_format(
    model_folder: Path, image_folders: tuple[Path, Path]
) -> None:
    recipe = quick_recipe(
        model_folder,
        image_folders,
        objective="finetune",
        lr="auto",
        lr_range=(1e-14, 1e-13),  # so that nothing moves
        epochs=1,
        precision="bf16",
    )
    chosen = choose_samples(recipe, load(recipe.model))
    accelerator = course.accelerator_for(recipe)
    found = rates.search(recipe, chosen, course.recipes_step(recipe), accelerator, progress=False)
    assert found["tried"][0]["classification"] == found["before"]["classification"]


def test_the_papers_rule_for_a_rate() -> None:
    before = {"top1": 80.0, "classification": 0.5}
    assert rates.passes({"top1": 77.5, "classification": 0.5}, before)
    assert not rates.passes({"top1": 77.4, "classification": 0.1}, before)
    assert not rates.passes({"top1": 90.0, "classification": 0.51}, before)
    assert rates.grid(5e-7, 5e-6)[0] == 5e-6
    assert rates.grid(5e-7, 5e-6)[-1] == 5e-7
