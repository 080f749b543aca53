"""The page of `refocus app`: compare two models, mend masks, change backgrounds, tune, audit.

Gradio draws it; what is shown is computed in `app_looks`, long work is done by `app_jobs`. A tab's
state is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from refocus.app.compare import compare_tab, what_if_tab
from refocus.app.mask import mask_tab
from refocus.app.parts import Tool
from refocus.app.work import audit_tab, tune_tab

CSS = """
.gradio-container { max-width: 72rem !important; width: 100% !important; margin: auto !important; }
.tabitem, .tabs { width: 100%; }
.models { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); }
.models > div { border: 1px solid var(--border-color-primary); border-radius: 8px;
  padding: .6rem .9rem; }
.models > div { background: var(--block-background-fill); }
.models b { font-size: 1.5rem; display: block; font-variant-numeric: tabular-nums;
  margin-top: .4rem; }
.refocus table { width: 100%; border-collapse: collapse; margin: .3rem 0; }
.refocus th { text-align: left; font-weight: 600; }
.refocus td, .refocus th { border: 0 !important; padding: .25rem .2rem !important; }
.refocus td, .refocus th { border-bottom: 1px solid var(--border-color-primary) !important; }
.models td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.refocus table, .refocus tbody, .refocus thead, .refocus tr { border: 0 !important; }
footer { display: none !important; }
"""


def build(tool: Tool) -> gr.Blocks:
    with gr.Blocks(analytics_enabled=False, title="refocus", delete_cache=(3600, 3600)) as page:
        gr.Markdown("# refocus\nWhere does your model look, and does its answer follow the object?")
        with gr.Tabs() as tabs:
            parts: dict[str, Callable[..., Any]] = {
                "Mask": mask_tab,
                "What if": what_if_tab,
                "Tune": tune_tab,
                "Audit": audit_tab,
            }
            with gr.Tab("Compare", id="compare"):
                compare = compare_tab(tool)
            for title, make in parts.items():
                with gr.Tab(title, id=title.lower().replace(" ", "-")) as tab:
                    more = {mask_tab: (tab,), what_if_tab: (compare,)}.get(make, (tabs, compare))
                    make(tool, *more)
    return page


THEME = gr.themes.Default(
    primary_hue="orange",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],  # a font from the web would be asked for
    font_mono=["ui-monospace", "monospace"],
).set(  # the theme's greys are too pale to read
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    block_label_text_color="*neutral_700",
    block_title_text_color="*neutral_800",
)
