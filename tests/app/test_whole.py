"""The tab All in one: what its button starts, that it goes on, what it shows at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import refocus
from refocus import RunSettings
from refocus.app.folders import Folders
from refocus.app.jobs import Job
from tests.app.makers import GRADIO, in_a_loop

pytestmark = [
    pytest.mark.skipif(not GRADIO, reason="gradio is not installed"),
    pytest.mark.filterwarnings("ignore"),
]


class _Idle(Job):
    """A job that ended without an error, whatever it was."""

    failed = False


@pytest.fixture
def tab(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    import gradio as gr

    from refocus.app.parts import Tool
    from refocus.app.whole import WholeTab

    tool = Tool({"model": str(model_folder)}, tmp_path / "work")

    def start(name: str, command: list[str], folder: Path) -> Job:
        tool.jobs.jobs[name] = _Idle(command, folder)
        return tool.jobs.jobs[name]

    monkeypatch.setattr(tool.jobs, "start", start)

    def made() -> WholeTab:
        with gr.Blocks():
            return WholeTab(tool, Folders(*image_folders))

    return in_a_loop(made)


@pytest.mark.slow
def test_the_button_runs_all_of_it_and_goes_on_after_a_stop(
    tab: Any, model_folder: Path, image_folders: tuple[Path, Path]
) -> None:
    images, masks = image_folders
    name = tab.begun()[0]
    job = tab.tool.jobs[name]
    given = ["--model", str(model_folder), "--images", str(images), "--masks", str(masks)]
    assert job.command == ["run", *given, "--out", str(job.folder)]
    assert tab.tick(name)[0].startswith("Stopped. Run everything continues")
    assert tab.begun()[0] == name
    quick = RunSettings(shots=1, epochs=1, most=8, device="cpu")
    found = refocus.run(model_folder, images, job.folder, masks=masks, settings=quick)
    words, link, *_ = tab.tick(name)
    assert all(answer.answer in words for answer in found.answers)
    assert f'href="/pages/{name}/index.html"' in link


def test_masks_are_found_where_the_folder_holds_none(tab: Any) -> None:
    first = next(tab.folders.masks.rglob("*.png"))
    for file in tab.folders.masks.rglob("*.png"):
        if file != first:
            file.unlink()
    first = first.rename(first.with_suffix(".bmp"))  # any kind of image is a mask
    assert "--masks" in tab.tool.jobs[tab.begun()[0]].command
    tab.tool.jobs.jobs.clear()
    first.unlink()
    assert "--masks" not in tab.tool.jobs[tab.begun()[0]].command
