"""The tabs Compare and What if: two models on one image, as it is and on another background."""

from __future__ import annotations

from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from refocus.app.looks import Look, drawn, look, on_another_background
from refocus.app.parts import OWN, Tool, looks_of, picture_at, said_in_page, upload

_EXAMPLES = (
    "chelsea",
    "coffee",
    "astronaut",
    "motorcycle_left",
)  # photographs in scikit-image's wheel
_SIDE = 448  # pixels of a map's height
_RELEVANCE = (
    "Relevance: how much each part of the image adds to this answer, as the model's "
    "attention and its gradient tell."
)


def _examples() -> list[str]:
    return [str(files("skimage").joinpath("data", f"{name}.png")) for name in _EXAMPLES]


def _overlays(
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


def _sides(looks: dict[str, Look]) -> str:
    """What the slider shows; an app started with one model has two once it has tuned it."""
    sides = "the image. Right: the map" if len(looks) == 1 else "**original**. Right: **tuned**"
    return f"Left of the handle: {sides}. Bright is where the answer comes from." if looks else ""


def _numbers(looks: dict[str, Look]) -> str:
    """Predictions of each model, and how much of the relevance lies on the object."""
    cells = []
    for title, seen in looks.items():
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{share:.1%}</td></tr>"
            for name, share in seen.shares.items()
        )
        on = (
            ""
            if seen.inside is None
            else f'<b>{seen.inside:.0%}</b><span title="{_RELEVANCE}">of the relevance lies on the '
            "object</span>"
        )
        first = next(iter(seen.shares))
        cells.append(
            f'<div data-model="{title}"><strong>{title}: '
            f"{escape(first)}</strong><table>{rows}</table>"
            f"<small>map of: {escape(seen.explained)}</small>{on}</div>"
        )
    return f'<div class="models refocus">{"".join(cells)}</div>'


def compare_tab(tool: Tool) -> dict[str, Any]:
    with gr.Row():
        with gr.Column():
            image = upload(
                label="Your image",
                sources=["upload", "clipboard"],
                elem_id="compare-image",
                height=300,
            )
            gr.Examples(_examples(), image, label="Or one of these", cache_examples=False)
            target = gr.Dropdown(
                [OWN, *tool.names()],
                value=OWN,
                label="Explain which class?",
                info="Where does it see this class?",
            )
            with gr.Row():
                threshold = gr.Slider(
                    0, 1, 0, step=0.05, label="Threshold", info="Hide relevance below it."
                )
                opacity = gr.Slider(
                    0,
                    1,
                    0.6,
                    step=0.05,
                    label="Opacity",
                    info="How strongly the map covers the image.",
                )
            use_mask = gr.Checkbox(
                label="Find the object and count what lies on it",
                info="Takes a second; an automatic mask.",
            )
        with gr.Column():
            sides = gr.Markdown(elem_id="compare-sides")
            shown: Any = gr.ImageSlider(
                label="Where it looks",
                elem_id="compare-shown",
                buttons=["download"],
                slider_position=50,
            )
            numbers = gr.HTML(elem_id="compare-numbers")
            download = gr.DownloadButton("Download as PNG", interactive=False)
    looks, run = gr.State({}), gr.State("")

    def refresh(
        path: str | None, target_: str, use: bool, run_: str, threshold_: float, opacity_: float
    ) -> list[Any]:
        picture = picture_at(path)
        mask = None
        if picture is not None and use:
            with said_in_page():
                mask = tool.find(picture)
        found = looks_of(tool, picture, target_, mask, run_)
        return [found, *redraw(found, threshold_, opacity_), _numbers(found), _sides(found)]

    def redraw(found: dict[str, Look], threshold_: float, opacity_: float) -> list[Any]:
        pictures = _overlays(found, threshold_, opacity_)
        if pictures is None:
            return [None, gr.update(interactive=False)]
        folder = tool.work / "downloads"
        folder.mkdir(parents=True, exist_ok=True)
        sheet = Image.fromarray(np.concatenate([np.asarray(p) for p in pictures], axis=1))
        file = folder / f"maps-{datetime.now():%Y%m%d-%H%M%S-%f}.png"
        sheet.save(file)
        return [pictures, gr.update(value=str(file), interactive=True)]

    inputs, outputs = (
        [image, target, use_mask, run, threshold, opacity],
        [looks, shown, download, numbers, sides],
    )
    for part in (image, target, use_mask, run):
        part.change(refresh, inputs, outputs)
    for slider in (threshold, opacity):
        slider.release(redraw, [looks, threshold, opacity], [shown, download])
    return {"image": image, "run": run}


def what_if_tab(tool: Tool, compare: dict[str, Any]) -> None:
    gr.Markdown(
        "Put the object on another background, and see whether the answer follows the object or "
        "the background."
    )
    with gr.Row():
        image = upload(label="Image", sources=["upload"], elem_id="swap-image", height=260)
        background = upload(
            label="Background (empty: its own, blurred)",
            sources=["upload"],
            elem_id="swap-background",
            height=260,
        )
    go = gr.Button("Swap", variant="primary", elem_id="swap-go")
    with gr.Row():
        options: dict[str, Any] = {
            "interactive": False,
            "height": 260,
            "buttons": ["download", "fullscreen"],
        }
        before, after = gr.Image(label="As it is", **options), gr.Image(label="Swapped", **options)
    numbers = gr.HTML(elem_id="swap-numbers")

    def swapped(path: str | None, other: str | None, run: str) -> list[Any]:
        picture, ground = picture_at(path), picture_at(other)
        if picture is None:
            raise gr.Error("give an image first", print_exception=False)
        with said_in_page():
            mask = tool.find(picture)
            changed = on_another_background(picture, mask, ground)
        first, second = (looks_of(tool, p, OWN, mask, run) for p in (picture, changed))
        rows = []
        for title in first:
            name = first[title].explained
            now = look(tool.models(run)[title], changed, name, mask)
            rows.append(
                f"<tr><td>{title}</td><td>{escape(name)} {first[title].shares[name]:.0%}</td>"
                f"<td>{escape(second[title].explained)} "
                f"{second[title].shares[second[title].explained]:.0%}</td>"
                f"<td>{now.shares[name]:.0%}</td></tr>"
            )
        head = (
            "<tr><th>model</th><th>as it is</th><th>swapped</th><th>confidence in the first "
            "answer, swapped</th></tr>"
        )
        shown = next(iter(first.values()))
        return [
            shown.picture,
            next(iter(second.values())).picture,
            f'<div class="refocus"><table>{head}{"".join(rows)}</table></div>',
        ]

    go.click(swapped, [image, background, compare["run"]], [before, after, numbers])
    compare["image"].change(lambda path: path, compare["image"], image)
