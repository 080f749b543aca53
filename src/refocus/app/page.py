"""The page of `refocus app`: compare two models, fix masks, change backgrounds, tune, audit.

Gradio draws it; what is shown is computed in `looks`, long work is done by `jobs`. A tab's state is
its own.
"""

from __future__ import annotations

import gradio as gr

from refocus.app.audit import AuditTab
from refocus.app.compare import CompareTab, Inputs
from refocus.app.mask import MaskTab
from refocus.app.parts import Tool
from refocus.app.tune import TuneTab
from refocus.app.what_if import WhatIfTab
from refocus.app.whole import WholeTab

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
@media (max-width: 40rem) {
  .gradio-container { padding: .4rem !important; }
  button[role=tab] { padding: 0 .5rem !important; font-size: .95rem !important; }
}
"""


_WITHOUT_FOLDER = {
    "Mask": "Start the app with a folder of images and one of masks to fix masks here.",
    "Tune": "Start the app with a folder of images and one of masks to tune on them.",
    "Audit": "Start the app with a folder of images and one of masks to audit a model on them.",
    "All in one": "Start the app with a folder of images and one of masks to run everything.",
}


def build(tool: Tool) -> gr.Blocks:
    """The page with its six tabs."""
    with gr.Blocks(analytics_enabled=False, title="refocus", delete_cache=(3600, 3600)) as page:
        gr.Markdown("# refocus\nWhere does your model look, and do its answers follow the object?")
        with gr.Tabs(overflow_behavior="wrap") as tabs:  # else a phone hides Tune and Audit
            with gr.Tab("Compare", id="compare"):
                compare = CompareTab(tool).inputs
            for title in ("Mask", "What if", "Tune", "Audit", "All in one"):
                with gr.Tab(title, id=title.lower().replace(" ", "-")) as tab:
                    _fill(title, tool, compare, tabs, tab)
    assert isinstance(page, gr.Blocks)
    return page


def _fill(title: str, tool: Tool, compare: Inputs, tabs: gr.Tabs, tab: gr.Tab) -> None:
    if title == "What if":
        WhatIfTab(tool, compare)
    elif tool.folders is None:
        gr.Markdown(_WITHOUT_FOLDER[title])
    elif title == "Mask":
        MaskTab(tool, tool.folders, tabs, tab)
    elif title == "All in one":
        WholeTab(tool, tool.folders)
    else:
        made = TuneTab if title == "Tune" else AuditTab
        made(tool, tool.folders, tabs, compare)


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
