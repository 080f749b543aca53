"""The tab What if: the object on another background, and what the models then answer."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr
from torch import Tensor

from refocus.app.compare import Inputs
from refocus.app.looks import Look, look, on_another_background
from refocus.app.parts import OWN, Tool, looks_of, picture_at, said_in_page, upload

_HEAD = (
    "<tr><th>model</th><th>as it is</th><th>swapped</th><th>confidence in the first "
    "answer, swapped</th></tr>"
)


def answers(first: dict[str, Look], second: dict[str, Look], kept: dict[str, float]) -> str:
    """A row for each model: its answer as it is and swapped, as HTML.

    kept: the confidence in the first answer on the swapped image.
    """
    rows = [
        f"<tr><td>{escape(title)}</td>{_cell(first[title])}{_cell(second[title])}"
        f"<td>{kept[title]:.0%}</td></tr>"
        for title in first
    ]
    return f'<div class="refocus"><table>{_HEAD}{"".join(rows)}</table></div>'


def _cell(seen: Look) -> str:
    return f"<td>{escape(seen.explained)} {seen.shares[seen.explained]:.0%}</td>"


class WhatIfTab:
    """The tab, and what its parts do."""

    def __init__(self, tool: Tool, compare: Inputs) -> None:
        """Lay the tab out and connect its parts."""
        self.tool = tool
        gr.Markdown(
            "Put the object on another background, and see whether the answer follows the object "
            "or the background."
        )
        with gr.Row():
            image = upload(label="Image", sources=["upload"], elem_id="swap-image", height=260)
            background = upload(
                label="Background (empty: its own background, blurred)",
                sources=["upload"],
                elem_id="swap-background",
                height=260,
            )
        go = gr.Button("Swap", variant="primary", elem_id="swap-go")
        options: dict[str, Any] = {
            "interactive": False,
            "height": 260,
            "buttons": ["download", "fullscreen"],
        }
        with gr.Row():
            before = gr.Image(label="Unchanged", **options)
            after = gr.Image(label="Swapped", **options)
        said = gr.HTML(elem_id="swap-numbers")
        go.click(self.swapped, [image, background, compare.run], [before, after, said])
        compare.image.change(_same, compare.image, image)

    def swapped(self, path: str | None, other: str | None, run: str) -> list[Any]:
        """Both pictures as the models see them, and what they answer."""
        picture, ground = picture_at(path), picture_at(other)
        if picture is None:
            raise gr.Error("give an image first", print_exception=False)
        with said_in_page():
            mask: Tensor = self.tool.find(picture)
            changed = on_another_background(picture, mask, ground)
        first, second = (looks_of(self.tool, p, OWN, mask, run) for p in (picture, changed))
        models = self.tool.models(run)
        kept = {
            title: look(models[title], changed, seen.explained, mask).shares[seen.explained]
            for title, seen in first.items()
        }
        pictures = [next(iter(found.values())).picture for found in (first, second)]
        return [*pictures, answers(first, second, kept)]


def _same(path: str | None) -> str | None:
    return path
