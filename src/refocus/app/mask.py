"""The tab Mask: doubtful masks of the folder, mended with a brush."""

from __future__ import annotations

from typing import Any

import gradio as gr
import matplotlib
import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from refocus.app.parts import Tool, said_in_page
from refocus.errors import InputError

_PAINT = "#ff7f0e"
_CANVAS = 640  # the editor's square, so that the brush is as wide on every image
Shown = dict[str, Any]


def _on_canvas(picture: Image.Image, filling: Any, method: Image.Resampling) -> Image.Image:
    """Fitted into the editor's square: layers and images of other sizes would be laid apart."""
    return ImageOps.pad(picture, (_CANVAS, _CANVAS), method, filling)


def _layer(mask: Tensor | None, size: tuple[int, int]) -> Image.Image:
    """A mask as a layer of the editor, in the brush's colour; size: of the image (width,
    height).
    """
    inside = np.zeros((size[1], size[0]), bool) if mask is None else mask[0].numpy() > 0.5
    colour = np.array([*matplotlib.colors.to_rgb(_PAINT), 0.6]) * 255
    layer = Image.fromarray((inside[..., None] * colour).round().astype(np.uint8), "RGBA")
    return _on_canvas(layer, (0, 0, 0, 0), Image.Resampling.NEAREST)


def painted(value: Shown, size: tuple[int, int]) -> np.ndarray:
    """What is marked in the editor's layers, bool `[H, W]` of the image's own size (width,
    height).
    """
    marked = np.zeros((_CANVAS, _CANVAS), bool)
    for layer in value["layers"]:
        marked |= (
            np.asarray(layer.convert("RGBA").resize((_CANVAS, _CANVAS), Image.Resampling.NEAREST))[
                ..., 3
            ]
            > 0
        )
    scale = _CANVAS / max(size)
    width, height = (round(scale * side) for side in size)
    left, top = (_CANVAS - width) // 2, (_CANVAS - height) // 2
    inside = Image.fromarray(marked[top : top + height, left : left + width])
    return np.asarray(inside.resize(size, Image.Resampling.NEAREST))


def mask_tab(tool: Tool, tab: gr.Tab) -> None:
    if tool.folders is None:
        gr.Markdown("Start the app with a folder of images and one of masks to mend masks.")
        return
    folders = tool.folders
    order = folders.doubtful()
    gr.Markdown(
        "Images without a mask come first, then those whose masks are doubtful. Paint the object; "
        "`tune` reads what you save."
    )
    with gr.Row():
        name = gr.Dropdown(
            order,
            value=None,
            label="Image",
            info="The most doubtful first.",
            elem_id="mask-name",
            scale=3,
        )
        following = gr.Button("Next", scale=1)
    editor = gr.ImageEditor(
        type="pil",
        label="Mask",
        elem_id="mask-editor",
        sources=[],
        transforms=[],
        brush=gr.Brush(default_size=24, colors=[_PAINT], default_color=_PAINT, color_mode="fixed"),
        eraser=gr.Eraser(default_size=24),
        layers=False,
        canvas_size=(_CANVAS, _CANVAS),
        fixed_canvas=True,
        height=560,
    )
    with gr.Row():
        automatic = gr.Button("Automatic mask")
        empty = gr.Button("Clear")
        save = gr.Button("Save", variant="primary", elem_id="mask-save")
    said, held = gr.Markdown(elem_id="mask-said"), gr.State(None)

    def show(name_: str | None, mask: Tensor | None = None) -> Any:
        if not name_:
            return None
        with said_in_page():
            image = folders.image(name_)
        background = _on_canvas(image, (128, 128, 128), Image.Resampling.BICUBIC)
        return {"background": background, "layers": [_layer(mask, image.size)], "composite": None}

    def opened(name_: str | None) -> list[Any]:
        """The editor, what is said, and whose mask the editor now holds."""
        try:
            return [show(name_, folders.mask(name_) if name_ else None), "", name_]
        except InputError as error:  # a mask that cannot be read is painted anew
            return [show(name_), str(error), name_]

    def found(name_: str | None) -> list[Any]:
        with said_in_page():
            return [show(name_, tool.find(folders.image(name_)) if name_ else None), name_]

    def saved(name_: str | None, held_: str | None, value: Shown | None) -> str:
        with said_in_page():
            if not name_ or value is None:
                raise InputError("choose an image first")
            if held_ != name_:
                raise InputError(f"{name_}: is not shown yet; save again when it is")
            file = folders.save(name_, painted(value, folders.image(name_).size))
        return f"Saved: {file.relative_to(folders.masks)}. The mask before is kept in `.replaced`."

    def step(name_: str | None) -> str:
        return order[(order.index(name_) + 1) % len(order)] if name_ in order else order[0]

    tab.select(lambda name_: name_ or order[0], name, name)
    name.change(opened, name, [editor, said, held])
    following.click(step, name, name)
    automatic.click(found, name, [editor, held])
    empty.click(lambda name_: [show(name_), name_], name, [editor, held])
    save.click(saved, [name, held, editor], said)
