"""The tab All in one: `refocus run` on the folder that the app was started with."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Any

import gradio as gr

from refocus.app.folders import Folders
from refocus.app.jobs import Job, command_line
from refocus.app.parts import Tool, said_in_page
from refocus.data.listing import holds_images
from refocus.flow import results
from refocus.flow.results import PAGE

_NAME = "all-"  # start of the names of its jobs


class WholeTab:
    """The tab, and what its parts do."""

    def __init__(self, tool: Tool, folders: Folders) -> None:
        """Lay the tab out and connect its parts."""
        self.tool, self.folders = tool, folders
        gr.Markdown(
            "Measures how much the model relies on the background, tunes it, checks that this does "
            "no harm, and compares before and after. One page at the end says what to do."
        )
        with gr.Row():
            start = gr.Button("Run everything", variant="primary", elem_id="all-start")
            stop = gr.Button("Stop", elem_id="all-stop", interactive=False)
        said = gr.Markdown(elem_id="all-said")
        link = gr.HTML(elem_id="all-link")
        run, timer = gr.State(""), gr.Timer(1.0, active=False)
        gr.on(fn=self.opened, outputs=[run, timer, said, stop])  # when the page is loaded
        start.click(self.begun, None, [run, timer, said, stop])
        stop.click(self.halted, run, said)
        timer.tick(self.tick, run, [said, link, stop, timer], show_progress="hidden")

    def opened(self) -> list[Any]:
        """Bring a new tab to the run that is at work, if there is one."""
        name = self.tool.jobs.running(_NAME)
        if not name:
            return [gr.skip()] * 4
        return [name, gr.Timer(active=True), "Running ...", gr.update(interactive=True)]

    def begun(self) -> list[Any]:
        """Start a run, or resume the last one."""
        name = self._unfinished() or f"{_NAME}{datetime.now():%Y%m%d-%H%M%S}"
        folder, refs = self.tool.work / name, self.tool.refs
        given = {
            "model": refs.get("against", refs["model"]),
            "images": self.folders.images,
            **self._masks(),
            "out": folder,
        }
        with said_in_page():
            self.tool.work.mkdir(parents=True, exist_ok=True)
            self.tool.jobs.start(name, command_line("run", **given), folder)
        return [name, gr.Timer(active=True), "Starting ...", gr.update(interactive=True)]

    def _masks(self) -> dict[str, Any]:
        """The folder of masks where it holds any; else they are found."""
        masks = self.folders.masks
        return {"masks": masks} if holds_images(masks) else {}

    def _unfinished(self) -> str:
        """The newest run of this app that was stopped before its end, or nothing."""
        mine = [name for name in self.tool.jobs.jobs if name.startswith(_NAME)]
        newest = max(mine, default="")
        job = self.tool.jobs[newest] if newest else None
        return "" if job is None or job.complete or job.failed else newest

    def halted(self, name: str) -> str:
        """Stop the run."""
        if name:
            self.tool.jobs[name].stop()
        return "Stopping ..."

    def tick(self, name: str) -> list[Any]:
        """Show the run as it is now."""
        job = self.tool.jobs[name]
        still, off = gr.Timer(active=job.running), gr.update(interactive=job.running)
        if job.running:
            return [escape(job.last) or "Running ...", "", off, still]
        if not job.complete:
            words = escape(job.words) or "Stopped. Run everything continues from there."
            return [words, "", off, still]
        page = f'<a href="/pages/{escape(name)}/{PAGE}" target="_blank">Open the page</a>'
        return [_answers(job), page, off, still]


def _answers(job: Job) -> str:
    """The three answers of a finished run, as Markdown."""
    found = results.read(job.folder).answers
    return "\n\n".join(f"**{a.question} {a.answer}.** {escape(a.why)}" for a in found)
