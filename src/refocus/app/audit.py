"""The tab Audit: how much a model relies on the background, and on which images most."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Any

import gradio as gr

from refocus.app.compare import Inputs
from refocus.app.folders import Folders
from refocus.app.jobs import command_line
from refocus.app.parts import Tool, said_in_page
from refocus.data.images import read_image
from refocus.evaluation.stored import read_audit

_OFF, _ON = gr.update(interactive=False), gr.update(interactive=True)


class AuditTab:
    """The tab, and what its parts do."""

    def __init__(self, tool: Tool, folders: Folders, tabs: gr.Tabs, compare: Inputs) -> None:
        """Lay the tab out and connect its parts."""
        self.tool, self.folders = tool, folders
        gr.Markdown(
            "Measures how much the model relies on the background, and shows the images whose "
            "confidence falls most on another background. Click an image to open it in Compare."
        )
        with gr.Row():
            start = gr.Button("Audit", variant="primary", elem_id="audit-start")
            stop = gr.Button("Stop", interactive=False, elem_id="audit-stop")
        said = gr.Markdown(elem_id="audit-said")
        worst = gr.Gallery(
            label="Largest fall of confidence on an other-class background",
            columns=4,
            allow_preview=False,
            elem_id="audit-worst",
        )
        link = gr.HTML()
        run, timer = gr.State(""), gr.Timer(1.0, active=False)
        gr.on(fn=self.opened, outputs=[run, timer, said, stop])  # when the page is loaded
        start.click(self.begun, None, [run, timer, said, stop])
        stop.click(self.halted, run, said)
        timer.tick(self.tick, run, [said, worst, link, timer, stop], show_progress="hidden")
        worst.select(self.chosen, run, [compare.image, tabs])

    def opened(self) -> list[Any]:
        """Bring a new tab to the audit that is running, if there is one."""
        name = self.tool.jobs.running("audit-")
        return [name, gr.Timer(active=True), "Running ...", _ON] if name else [gr.skip()] * 4

    def begun(self) -> list[Any]:
        """Start an audit of the model."""
        name = f"audit-{datetime.now():%Y%m%d-%H%M%S}"
        folder = self.tool.work / name
        given = {
            "model": self.tool.refs["model"],
            "images": self.folders.images,
            "masks": self.folders.masks,
            "out": folder,
        }
        with said_in_page():
            self.tool.work.mkdir(parents=True, exist_ok=True)
            self.tool.jobs.start(name, command_line("audit", **given), folder)
        return [name, gr.Timer(active=True), "Running ...", _ON]

    def halted(self, name: str) -> str:
        """Stop the audit."""
        if name:
            self.tool.jobs[name].stop()
        return "Stopped."

    def tick(self, name: str) -> list[Any]:
        """Show the audit as it is now."""
        job = self.tool.jobs[name]
        if job.running:
            return [gr.skip(), gr.skip(), gr.skip(), gr.Timer(active=True), _ON]
        if not job.complete:
            return [escape(job.words) or "Stopped.", None, "", gr.Timer(active=False), _OFF]
        audit = read_audit(job.folder / "audit.json")
        pictures = [
            (read_image(self.folders.images / row.image), f"-{row.fall:.0%}")
            for row in audit.worst_images
        ]
        page = f'<a href="/pages/{escape(name)}/audit.html" target="_blank">Open the audit</a>'
        return [audit.verdict, pictures, page, gr.Timer(active=False), _OFF]

    def chosen(self, name: str, event: gr.SelectData) -> list[Any]:
        """Open one of the worst images in Compare."""
        row = read_audit(self.tool.jobs[name].folder / "audit.json").worst_images[event.index]
        return [read_image(self.folders.images / row.image), gr.Tabs(selected="compare")]
