"""One model beside the image, two beside each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from refocus import Recipe
from refocus.app import looks
from refocus.vit import loading
from refocus.vit.classes import folder_names
from tests.app.makers import GRADIO, in_a_loop
from tests.makers import Build


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_one_model_is_shown_beside_the_image_and_two_beside_each_other() -> None:
    from refocus.app.compare import overlays, sides

    seen = looks.Look(
        np.full((20, 30, 3), 100, np.uint8),
        np.linspace(0, 1, 600).reshape(20, 30),
        {"cat": 1.0},
        "cat",
    )
    image, heat = overlays({"model": seen}, 0.0, 0.6)
    assert image.size == heat.size == (672, 448)  # its own shape
    assert np.asarray(image).std() < 1 < np.asarray(heat).std()
    assert "image" in sides({"model": seen})
    assert "tuned" in sides({"original": seen, "tuned": seen})
    left, right = overlays({"original": seen, "tuned": seen}, 0.0, 0.6)
    assert np.array_equal(np.asarray(left), np.asarray(right))
    assert overlays({}, 0.0, 0.6) is None


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_answers_come_in_the_order_of_the_questions(
    two_models: dict[str, str], tmp_path: Path
) -> None:
    """Whatever draws the maps waits in one queue, and of waiting questions the newest is asked."""
    import gradio as gr

    from refocus.app.compare import CompareTab
    from refocus.app.parts import Tool

    def made() -> tuple[Any, Any]:
        with gr.Blocks() as page:
            return page, CompareTab(Tool(two_models, tmp_path / "work"))

    page, tab = in_a_loop(made)
    drawing = [event for event in page.fns.values() if tab.shown in event.outputs]
    assert len([target for event in drawing for target in event.targets]) == 4 + 2
    for event in drawing:
        found = (event.concurrency_id, event.concurrency_limit, event.trigger_mode)
        assert found == (drawing[0].concurrency_id, 1, "always_last")


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_run_is_compared_with_the_model_it_was_tuned_from(
    tiny: Build, two_models: dict[str, str], tmp_path: Path
) -> None:
    from refocus.app.parts import Tool

    other = tiny()
    torch.nn.init.constant_(other.head.bias, 7)
    loading.save(other, tmp_path / "other")
    run = tmp_path / "work" / "run-1"
    shutil.copytree(two_models["model"], run / "model")
    recipe = Recipe(model=str(tmp_path / "other"), images="images", masks="masks")
    (run / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    found = Tool(two_models, tmp_path / "work").models("run-1")
    assert list(found) == ["original", "tuned"]
    assert found["original"].head.bias.tolist() == [7.0] * 4
    assert found["tuned"].head.bias.tolist() != [7.0] * 4


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_an_original_without_names_is_asked_by_the_names_of_its_run_or_folders(
    tiny: Build, two_models: dict[str, str], image_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    from refocus.app.folders import Folders
    from refocus.app.parts import Tool

    bare = tiny()
    bare.pretrained_cfg["label_names"] = None
    loading.save(bare, tmp_path / "bare")
    names, folders = ["ant", "bee", "cat", "dog"], Folders(*image_folders)
    run = tmp_path / "work" / "run-1"
    shutil.copytree(two_models["model"], run / "model")
    recipe = Recipe(tmp_path / "bare", *image_folders)
    (run / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    original = Tool(two_models, tmp_path / "work").models("run-1")["original"]
    assert folder_names(original) == names
    pair = {**two_models, "against": str(tmp_path / "bare")}
    assert Tool(pair, tmp_path / "work", folders).names() == names
    (tmp_path / "names.txt").write_text("\n".join(names[::-1]))
    given = {which: f"{ref}?names={tmp_path / 'names.txt'}" for which, ref in pair.items()}
    assert Tool(given, tmp_path / "work").names() == names[::-1]  # of the one without names alone


@pytest.mark.skipif(not GRADIO, reason="gradio is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_base_that_was_retrained_in_place_is_read_anew_and_said(
    tiny: Build, two_models: dict[str, str], tmp_path: Path
) -> None:
    from refocus.app.compare import sides
    from refocus.app.parts import Tool

    base = tmp_path / "base"
    loading.save(tiny(), base)
    run = tmp_path / "work" / "run-1"
    shutil.copytree(two_models["model"], run / "model")
    recipe = Recipe(model=str(base), images="images", masks="masks")
    (run / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    tool = Tool(two_models, tmp_path / "work")
    assert not tool.changed("run-1")  # a run of an earlier version kept no digest
    weights = loading.weights_digest(tool.models("run-1")["original"])
    (run / "inputs.json").write_text(json.dumps({"weights": weights, "files": {}}))
    assert not tool.changed("run-1")
    retrained = tiny()
    torch.nn.init.constant_(retrained.head.bias, 7)
    loading.save(retrained, base)
    assert tool.models("run-1")["original"].head.bias.tolist() == [7.0] * 4
    assert tool.changed("run-1")
    assert not tool.changed("")
    seen = looks.look(retrained, Image.new("RGB", (40, 40), "green"))
    assert "changed after" in sides({"original": seen, "tuned": seen}, changed=True)
