"""The tab Tune: a run on the folder, watched, stopped and resumed."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Any

import gradio as gr
from matplotlib.figure import Figure

from refocus.app.compare import Inputs
from refocus.app.folders import Folders
from refocus.app.jobs import Job, command_line
from refocus.app.parts import Tool, said_in_page
from refocus.app.progress import Progress
from refocus.errors import InputError
from refocus.figures.charts import AFTER, BEFORE
from refocus.settings import settings_of
from refocus.tuning.recipe import RECOMMENDED, Recipe
from refocus.tuning.results import results_of

_REPORT, _MAKING = "report-of-", "Creating the report: about a minute for a small folder ..."
_OFF, _ON = gr.update(interactive=False), gr.update(interactive=True)
_DEFAULTS = {setting.name: setting.default for setting in settings_of(Recipe)}


def loss_curve(losses: dict[str, list[float]]) -> Figure:
    """Losses over the epochs; losses: title -> one number an epoch."""
    page = Figure(figsize=(5, 2.6), layout="constrained")
    axes = page.subplots()
    looks = zip((BEFORE, AFTER), ("o", "s"), strict=True)
    for (title, values), (colour, marker) in zip(losses.items(), looks, strict=True):
        at = range(1, len(values) + 1)
        axes.plot(at, values, color=colour, marker=marker, markersize=4, label=title)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return page


def _chosen(name: str | None) -> str:
    if not name:
        raise gr.Error("choose a run, or start one", print_exception=False)
    return name


class TuneTab:
    """The tab, and what its parts do."""

    def __init__(self, tool: Tool, folders: Folders, tabs: gr.Tabs, compare: Inputs) -> None:
        """Lay the tab out and connect its parts."""
        self.tool, self.folders = tool, folders
        gr.Markdown(
            f"Tunes on **{escape(str(folders.images))}** with the masks in "
            f"**{escape(str(folders.masks))}**."
        )
        self._settings()
        self._controls()
        self._results()
        self._connect(tabs, compare)

    def _settings(self) -> None:
        with gr.Row():
            self.objective = gr.Dropdown(
                list(dict.fromkeys((RECOMMENDED, "relevance"))),
                value=RECOMMENDED,
                label="Objective",
                info=f"{RECOMMENDED}: recommended. relevance: the paper's.",
            )
            self.shots = gr.Number(
                _DEFAULTS["shots"],
                label="Images per class",
                info="For half of the classes.",
                precision=0,
                minimum=1,
            )
            self.epochs = gr.Number(
                _DEFAULTS["epochs"],
                label="Epochs",
                info="Passes over these images.",
                precision=0,
                minimum=1,
                elem_id="tune-epochs",
            )

    def _controls(self) -> None:
        self.run = gr.Dropdown(
            [],
            value=None,
            label="Run",
            info="Runs in this work folder, the newest first.",
            elem_id="tune-run",
        )
        with gr.Row():
            self.start = gr.Button("Start", variant="primary", elem_id="tune-start")
            self.stop = gr.Button("Stop", interactive=False, elem_id="tune-stop")
            self.resume = gr.Button("Resume", interactive=False, elem_id="tune-resume")
        self.said = gr.Markdown("Not started.", elem_id="tune-said")

    def _results(self) -> None:
        with gr.Row():
            self.curve = gr.Plot(label="Losses")
            self.maps = gr.Gallery(label="Current maps", columns=4, height=240, allow_preview=False)
        with gr.Row():
            self.use = gr.Button("Open in Compare", interactive=False, elem_id="tune-open")
            self.report = gr.Button("Create the report", interactive=False, elem_id="tune-report")
        self.link = gr.HTML(elem_id="tune-link")
        self.progress, self.timer = gr.State(None), gr.Timer(1.0, active=False)

    def _connect(self, tabs: gr.Tabs, compare: Inputs) -> None:
        ends = [self.stop, self.resume]
        shown = [self.said, self.curve, self.maps, self.use, self.report, self.link, *ends]
        seen = [self.progress, self.timer, *shown]
        run, timer = self.run, self.timer
        gr.on(fn=self.opened, outputs=[run, *seen])  # when the page is loaded
        run.input(self.watched, run, seen)
        self.start.click(self.begun, [self.objective, self.shots, self.epochs], [run, *seen])
        self.resume.click(self.resumed, run, [timer, self.said])
        self.stop.click(self.halted, run, self.said)
        timer.tick(self.tick, [run, self.progress], [*shown, timer], show_progress="hidden")
        self.use.click(lambda name: [name, gr.Tabs(selected="compare")], run, [compare.run, tabs])
        self.report.click(self.reported, run, [timer, self.link])

    # --- what happens ---------------------------------------------------------------------------

    def watched(self, name: str, words: str = "Reading ...") -> list[Any]:
        """Turn to a run; nothing of another is left to be seen."""
        progress = Progress(self.tool.jobs[name].folder)
        return [progress, gr.Timer(active=True), words, None, None, _OFF, _OFF, "", _OFF, _OFF]

    def opened(self) -> list[Any]:
        """Give a new tab the runs to choose from, at the one that is running."""
        jobs = self.tool.jobs
        name = jobs.running("run-") or (jobs.running(_REPORT) or "").removeprefix(_REPORT)
        shown = self.watched(name) if name else [gr.skip()] * 10
        return [gr.update(choices=jobs.runs(), value=name or None), *shown]

    def begun(self, objective: str, shots: int | None, epochs: int | None) -> list[Any]:
        """Start a new run."""
        if not shots or not epochs:
            raise gr.Error(
                "give the number of images per class and of epochs, at least 1 each",
                print_exception=False,
            )
        name = f"run-{datetime.now():%Y%m%d-%H%M%S}"
        folder, refs = self.tool.work / name, self.tool.refs
        given = {
            "model": refs.get("against", refs["model"]),
            "images": self.folders.images,
            "masks": self.folders.masks,
            "out": folder,
            "objective": objective,
            "shots": int(shots),
            "epochs": int(epochs),
            "skip_bad": True,
            "fewer": True,
        }
        with said_in_page():
            self.tool.work.mkdir(parents=True, exist_ok=True)
            self.tool.jobs.start(name, command_line("tune", **given), folder)
        runs = gr.update(choices=self.tool.jobs.runs(), value=name)
        return [runs, *self.watched(name, "Starting ...")]

    def resumed(self, name: str | None) -> list[Any]:
        """Resume a run where it stopped."""
        name = _chosen(name)
        folder = self.tool.jobs[name].folder
        with said_in_page():
            self.tool.jobs.start(name, command_line("tune", resume=folder), folder)
        return [gr.Timer(active=True), "Resuming ..."]

    def halted(self, name: str | None) -> str:
        """Stop a run, and the report that is made of it."""
        name = _chosen(name)
        for key in (name, _REPORT + name):
            if key in self.tool.jobs:
                self.tool.jobs[key].stop()
        return "Stopping ..."

    def reported(self, name: str) -> list[Any]:
        """Start to make the report of a run."""
        folder = self.tool.jobs[name].folder
        with said_in_page():
            self.tool.jobs.start(_REPORT + name, ["report", str(folder)], folder)
        return [gr.Timer(active=True), _MAKING]

    def tick(self, name: str, state: Progress) -> list[Any]:
        """Show a run as it is now."""
        job, making = self.tool.jobs[name], self.tool.jobs.jobs.get(_REPORT + name)
        busy = making is not None and making.running
        has_losses = (state.folder / "history.jsonl").exists()
        losses = state.losses() if has_losses else {"training": [], "validation": []}
        done = len(losses["validation"])
        words = state_of(job, done)
        ready = gr.update(interactive=job.complete and not busy)
        timer = gr.Timer(active=job.running or busy)
        try:
            tiles = state.maps()
        except InputError as error:  # the model that an old run started from may be gone
            tiles, words = [], escape(str(error))
        curve = loss_curve(losses) if done else None
        page, ends = self._page(name, making), buttons(job, busy=busy)
        return [words, curve, tiles, ready, ready, page, *ends, timer]

    def _page(self, name: str, making: Job | None) -> str:
        """The link to a run's report, or why there is none, as HTML."""
        if making is not None and making.running:
            return _MAKING
        if (self.tool.jobs[name].folder / "report.html").exists():
            return (
                f'<a href="/pages/{escape(name)}/report.html" target="_blank">Open the report</a>'
            )
        return escape(making.words or "Stopped.") if making else ""


def buttons(job: Job, *, busy: bool) -> list[Any]:
    """Stop and Resume, each active only where it does something; busy: is its report being made?"""
    resumable = not (job.running or job.complete or busy)
    return [_ON if job.running or busy else _OFF, _ON if resumable else _OFF]


def state_of(job: Job, done: int) -> str:
    """How a run stands, as Markdown; done: its whole epochs."""
    if job.running:
        return f"Running: epoch {done} done."
    if job.complete:
        return f"Done: {escape(results_of(job.folder).conclusion)}"
    if job.failed:
        return escape(job.words) or "It failed; start the app in a terminal to see why."
    return f"Stopped after epoch {done}. Resume continues from there."
