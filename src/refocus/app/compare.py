"""The tab Compare: two models on one image."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from refocus.app.looks import Look, drawn
from refocus.app.parts import OWN, Tool, looks_of, picture_at, said_in_page, upload
from refocus.files import write_bytes

# photographs in scikit-image's wheel
_EXAMPLES = ("chelsea", "coffee", "astronaut", "motorcycle_left")
_SIDE = 448  # pixels of a map's height
_CHANGED = (
    "**The original model changed after this run was tuned from it**: the model shown beside the "
    "tuned one is not the one that tuning started from."
)
# one answer at a time, and after it the newest question: else a slow answer to an older one would
# come last and stand there
_IN_TURN: dict[str, Any] = {
    "concurrency_id": "compare",
    "concurrency_limit": 1,
    "trigger_mode": "always_last",
}
_RELEVANCE = (
    "Relevance: how much each part of the image contributes to this answer, according to the "
    "model's attention and its gradient."
)


@dataclass(frozen=True)
class Inputs:
    """What other tabs can set: the image, and the run whose models are compared."""

    image: gr.Image
    run: gr.State


def _examples() -> list[str]:
    return [str(files("skimage").joinpath("data", f"{name}.png")) for name in _EXAMPLES]


def overlays(
    looks: dict[str, Look], threshold: float, opacity: float
) -> tuple[Image.Image, Image.Image] | None:
    """For the slider: the maps of original and tuned, or of one model the image and its map."""
    pictures = [_tile(drawn(seen, threshold, opacity)) for seen in looks.values()]
    if len(pictures) == 1:
        pictures.insert(0, _tile(next(iter(looks.values())).picture))
    return (pictures[0], pictures[1]) if pictures else None


def _tile(pixels: np.ndarray) -> Image.Image:
    height, width = pixels.shape[:2]
    return Image.fromarray(pixels).resize((round(_SIDE * width / height), _SIDE))


def sides(looks: dict[str, Look], *, changed: bool = False) -> str:
    """What the slider shows; an app started with one model has two once it has tuned it.

    changed: the original is another than the one that the run was tuned from.
    """
    named = "the image. Right: the map" if len(looks) == 1 else "**original**. Right: **tuned**"
    warning = f" {_CHANGED}" if changed else ""
    shown = f"Left of the handle: {named}. Bright is where the answer comes from.{warning}"
    return shown if looks else ""


def numbers(looks: dict[str, Look]) -> str:
    """Predictions of each model, and how much of the relevance lies on the object, as HTML."""
    cells = []
    for title, seen in looks.items():
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{share:.1%}</td></tr>"
            for name, share in seen.shares.items()
        )
        on = (
            ""
            if seen.inside is None
            else f'<b>{seen.inside:.0%}</b><span title="{escape(_RELEVANCE)}">of the relevance '
            "lies on the object</span>"
        )
        first = next(iter(seen.shares))
        cells.append(
            f'<div data-model="{escape(title)}"><strong>{escape(title)}: '
            f"{escape(first)}</strong><table>{rows}</table>"
            f"<small>map of: {escape(seen.explained)}</small>{on}</div>"
        )
    return f'<div class="models refocus">{"".join(cells)}</div>'


class CompareTab:
    """The tab, and what its parts do."""

    def __init__(self, tool: Tool) -> None:
        """Lay the tab out and connect its parts."""
        self.tool = tool
        with gr.Row():
            with gr.Column():
                self._questions()
            with gr.Column():
                self._answers()
        looks, run = gr.State({}), gr.State("")
        inputs = [self.image, self.target, self.use_mask, run, self.threshold, self.opacity]
        seen = [looks, self.shown, self.download, self.numbers, self.sides]
        asked = [part.change for part in (self.image, self.target, self.use_mask, run)]
        moved = [slider.release for slider in (self.threshold, self.opacity)]
        gr.on(asked, self.refresh, inputs, seen, **_IN_TURN)
        drawing = [looks, self.threshold, self.opacity]
        gr.on(moved, self.redraw, drawing, [self.shown, self.download], **_IN_TURN)
        self.inputs = Inputs(self.image, run)
        gr.on(fn=self.first, outputs=self.image)  # when the page is loaded

    def _questions(self) -> None:
        self.image = upload(
            label="Your image", sources=["upload", "clipboard"], elem_id="compare-image", height=300
        )
        gr.Examples(_examples(), self.image, label="Or one of these", cache_examples=False)
        self.target = gr.Dropdown(
            [OWN, *self.tool.names()],
            value=OWN,
            label="Explain which class?",
            info="Show where the models see this class.",
        )
        with gr.Row():
            self.threshold = gr.Slider(
                0, 1, 0, step=0.05, label="Threshold", info="Hide relevance below this value."
            )
            self.opacity = gr.Slider(
                0, 1, 0.6, step=0.05, label="Opacity", info="How strongly the map covers the image."
            )
        self.use_mask = gr.Checkbox(
            label="Find the object and measure the relevance on it",
            info="Uses an automatic mask; takes about a second.",
        )

    def _answers(self) -> None:
        self.sides = gr.Markdown(elem_id="compare-sides")
        self.shown: Any = gr.ImageSlider(
            label="Where it looks",
            elem_id="compare-shown",
            buttons=["download"],
            slider_position=50,
        )
        self.numbers = gr.HTML(elem_id="compare-numbers")
        self.download = gr.DownloadButton("Download as PNG", interactive=False)

    def first(self) -> Any:
        """The first image of the folder that the app was started with."""
        folders = self.tool.folders
        return folders.image(next(iter(folders.files))) if folders else gr.skip()

    def refresh(
        self,
        path: str | None,
        target: str,
        use_mask: bool,
        run: str,
        *drawing: float,
    ) -> list[Any]:
        """Ask the models anew; drawing: threshold and opacity."""
        picture, mask = picture_at(path), None
        if picture is not None and use_mask:
            with said_in_page():
                mask = self.tool.find(picture)
        found = looks_of(self.tool, picture, target, mask, run)
        with said_in_page():
            changed = bool(found) and self.tool.changed(run)
        return [found, *self.redraw(found, *drawing), numbers(found), sides(found, changed=changed)]

    def redraw(self, looks: dict[str, Look], threshold: float, opacity: float) -> list[Any]:
        """The slider and the file to download, from what the models have answered."""
        pictures = overlays(looks, threshold, opacity)
        if pictures is None:
            return [None, gr.update(interactive=False)]
        sheet, buffer = np.concatenate([np.asarray(p) for p in pictures], axis=1), io.BytesIO()
        Image.fromarray(sheet).save(buffer, format="PNG")
        self.tool.downloads.make_room(len(buffer.getvalue()))
        folder = self.tool.downloads.opened()
        file = folder / f"maps-{datetime.now():%Y%m%d-%H%M%S-%f}.png"
        write_bytes(file, buffer.getvalue())
        return [pictures, gr.update(value=str(file), interactive=True)]
