"""The tab Mask: uncertain masks of the folder, fixed with a brush."""

from __future__ import annotations

from typing import Any

import gradio as gr
import matplotlib
import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from refocus.app.folders import Folders
from refocus.app.parts import Tool, said_in_page
from refocus.errors import InputError

_PAINT = "#ff7f0e"
_CANVAS = 640  # the editor's square, so that the brush is as wide on every image
_INSIDE = 0.5  # a mask's value from which a pixel is painted
Shown = dict[str, Any]
Held = tuple[str, Tensor | None]


def _on_canvas(picture: Image.Image, filling: Any, method: Image.Resampling) -> Image.Image:
    """Fitted into the editor's square: layers and images of other sizes would be laid apart."""
    return ImageOps.pad(picture, (_CANVAS, _CANVAS), method, filling)


def layer(mask: Tensor | None, size: tuple[int, int]) -> Image.Image:
    """A mask as a layer of the editor, in the brush's colour; size: (width, height)."""
    inside = np.zeros((size[1], size[0]), bool) if mask is None else mask[0].numpy() > _INSIDE
    colour = np.array([*matplotlib.colors.to_rgb(_PAINT), 0.6]) * 255
    drawn = Image.fromarray((inside[..., None] * colour).round().astype(np.uint8), "RGBA")
    return _on_canvas(drawn, (0, 0, 0, 0), Image.Resampling.NEAREST)


def painted(shown: Shown, size: tuple[int, int], before: Tensor | None = None) -> np.ndarray:
    """What is marked in the editor's layers, bool `[H, W]` of the image's own size.

    size: (width, height) of the image. before: the mask that the editor was given; where nobody
    painted, it stays as it is, also if the image has more pixels than the editor.
    """
    marked = _marked(shown["layers"])
    found = _of_size(marked, size)
    if before is None:
        return found
    touched = _of_size(marked != _marked([layer(before, size)]), size)
    return np.where(touched, found, before[0].numpy() > _INSIDE)


def _marked(layers: list[Image.Image]) -> np.ndarray:
    """Where one of the editor's layers is painted, bool of the editor's square."""
    marked = np.zeros((_CANVAS, _CANVAS), bool)
    for drawn in layers:
        square = drawn.convert("RGBA").resize((_CANVAS, _CANVAS), Image.Resampling.NEAREST)
        marked |= np.asarray(square)[..., 3] > 0
    return marked


def _of_size(marked: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image's part of the editor's square, in the image's size `[H, W]`."""
    frame = _on_canvas(Image.new("L", size, 255), 0, Image.Resampling.NEAREST)
    inside = Image.fromarray(marked).crop(frame.getbbox())
    return np.asarray(inside.resize(size, Image.Resampling.NEAREST))


class MaskTab:
    """The tab, and what its parts do."""

    def __init__(self, tool: Tool, folders: Folders, tabs: gr.Tabs, tab: gr.Tab) -> None:
        """Lay the tab out and connect its parts; tab: in which it stands, of `tabs`."""
        self.tool, self.folders, self.order = tool, folders, folders.doubtful()
        gr.Markdown(
            "Images without a mask come first, then those whose masks are uncertain. Paint the "
            "object and save; `tune` uses what you save."
        )
        with gr.Row():
            name = gr.Dropdown(
                self.order,
                value=None,
                label="Image",
                info="The most uncertain mask first.",
                elem_id="mask-name",
                scale=3,
            )
            following = gr.Button("Next", scale=1)
        editor = _editor()
        with gr.Row():
            automatic = gr.Button("Automatic mask")
            empty = gr.Button("Clear")
            save = gr.Button("Save", variant="primary", elem_id="mask-save")
        said, held = gr.Markdown(elem_id="mask-said"), gr.State(None)
        gr.on(fn=self.asked, outputs=[name, tabs])  # when the page is loaded
        tab.select(self.first, name, name)
        name.change(self.opened, name, [editor, said, held])
        following.click(self.step, name, name)
        automatic.click(self.found, name, [editor, held])
        empty.click(lambda chosen: [self.shown(chosen), (chosen, None)], name, [editor, held])
        save.click(self.saved, [name, held, editor], said)

    def shown(self, name: str | None, mask: Tensor | None = None) -> Shown | None:
        """An image and a mask as the editor takes them."""
        if not name:
            return None
        with said_in_page():
            image = self.folders.image(name)
        background = _on_canvas(image, (128, 128, 128), Image.Resampling.BICUBIC)
        return {"background": background, "layers": [layer(mask, image.size)], "composite": None}

    def opened(self, name: str | None) -> list[Any]:
        """The editor, what is said, and which mask the editor now holds."""
        try:
            mask = self.folders.mask(name) if name else None
            return [self.shown(name, mask), "", (name, mask)]
        except InputError as error:  # a mask that cannot be read is painted anew
            return [self.shown(name), str(error), (name, None)]

    def found(self, name: str | None) -> list[Any]:
        """The editor with an automatic mask, and that."""
        with said_in_page():
            mask = self.tool.find(self.folders.image(name)) if name else None
        return [self.shown(name, mask), (name, mask)]

    def saved(self, name: str | None, held: Held | None, shown: Shown | None) -> str:
        """Save what is painted; held: the image in the editor, and its mask at first."""
        with said_in_page():
            if not name or shown is None:
                raise InputError("choose an image first")
            if held is None or held[0] != name:
                raise InputError(f"{name}: is still loading; save again when it is shown")
            drawn = painted(shown, self.folders.image(name).size, held[1])
            file = self.folders.save(name, drawn)
        where = file.relative_to(self.folders.masks)
        return f"Saved: {where}. The previous mask is kept in `.replaced`."

    def asked(self, request: gr.Request) -> list[Any]:
        """What the address asks for: `?mask=CLASS/FILE` for an image, `?tab=mask` for the tab."""
        asked = dict(request.query_params)
        known = asked.get("mask") in self.order
        if not known and asked.get("tab") != "mask":
            return [gr.skip(), gr.skip()]
        return [asked["mask"] if known else self.order[0], gr.Tabs(selected="mask")]

    def first(self, name: str | None) -> str:
        """The image that is shown, when the tab is opened the most uncertain one."""
        return name or self.order[0]

    def step(self, name: str | None) -> str:
        """The next image, after the last the first again."""
        at = self.order.index(name) + 1 if name in self.order else 0
        return self.order[at % len(self.order)]


def _editor() -> gr.ImageEditor:
    return gr.ImageEditor(
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
