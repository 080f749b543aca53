"""What the tabs of the app share: what it was started with, and images that a person gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from torch import Tensor, nn

from refocus import fingerprints
from refocus.app.folders import Folders
from refocus.app.jobs import Jobs
from refocus.app.looks import Finder, Look, look
from refocus.app.uploads import Store
from refocus.data.folders import name_by_folders
from refocus.data.images import read_image
from refocus.errors import InputError
from refocus.masks.choice import default_backbone
from refocus.runs import MODEL
from refocus.tuning import recipe
from refocus.tuning.checkpoints import base_changed
from refocus.vit.classes import names_of
from refocus.vit.loading import load_together

OWN = "the model's own prediction"


@dataclass
class Tool:
    """What one app was started with.

    refs: "model", and "against" where there is one before, as `refocus` names them. work: what the
    app makes. folders: images and masks to work on. backbone: finds masks.
    """

    refs: dict[str, str]
    work: Path
    folders: Folders | None = None
    backbone: str = field(default_factory=default_backbone)

    def __post_init__(self) -> None:
        """Look for jobs that an earlier start left at work."""
        self.find, self.jobs = Finder(self.backbone), Jobs(self.work)
        self.uploads = Store(self.work / ".uploads")
        self.downloads = Store(self.work / "downloads", most=100 << 20)

    def models(self, run: str = "") -> dict[str, nn.Module]:
        """Title -> model: what the app was started with, or of a run in its work folder."""
        refs = (
            {"original": self.refs["against"], "tuned": self.refs["model"]}
            if "against" in self.refs
            else self.refs
        )
        images: Path | None = self.folders.images if self.folders else None
        if run:
            folder = self.jobs[run].folder
            tuned_by = recipe.recipe_of(folder)
            refs = {"original": str(tuned_by.model), "tuned": str(folder / MODEL)}
            images = Path(tuned_by.images)
        content = tuple(tuple(fingerprints.of_model(ref)) for ref in refs.values())
        models = _loaded(tuple(refs.items()), content)
        if images is not None:
            with contextlib.suppress(InputError):  # classes are called by their numbers then
                for model in models.values():
                    name_by_folders(model, images)
        return models

    def changed(self, run: str) -> bool:
        """Whether the model that a run started from is another today."""
        return bool(run) and base_changed(self.jobs[run].folder, self.models(run)["original"])

    def names(self) -> list[str]:
        """Readable class names."""
        return names_of(next(iter(self.models().values())))


@lru_cache(maxsize=4)
def _loaded(
    refs: tuple[tuple[str, str], ...], _content: tuple[tuple[str, ...], ...]
) -> dict[str, nn.Module]:
    """Models; they are read anew where a folder holds another one meanwhile."""
    return dict(load_together(dict(refs), "cpu"))


@contextlib.contextmanager
def said_in_page() -> Iterator[None]:
    """What is wrong with the input is said in the page."""
    try:
        yield
    except InputError as error:
        raise gr.Error(str(error), print_exception=False) from error


def upload(**options: Any) -> gr.Image:
    """An image that a person gives; a file that is none is refused in one line.

    A subclass would do, but for those Gradio writes a file beside this one.
    """
    component = gr.Image(type="filepath", format="png", **options)
    genuine = component.preprocess

    def preprocess(payload: Any) -> Any:
        try:
            return genuine(payload)
        except OSError as error:
            raise gr.Error("this file cannot be read as an image", print_exception=False) from error

    component.preprocess = preprocess  # type: ignore[method-assign]
    return component


def picture_at(path: str | None) -> Image.Image | None:
    """The picture of an upload, None where there is none yet."""
    if not path:
        return None
    with said_in_page():
        return read_image(Path(path))


def looks_of(
    tool: Tool, image: Image.Image | None, target: str, mask: Tensor | None, run: str
) -> dict[str, Look]:
    """Title -> what each model makes of an image; target: a class by name, or `OWN`."""
    if image is None:
        return {}
    with said_in_page():
        models = tool.models(run)
        return {
            title: look(model, image, None if target == OWN else target, mask)
            for title, model in models.items()
        }
