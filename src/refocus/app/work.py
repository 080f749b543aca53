"""The tabs Tune and Audit: long work on the folder, watched, stopped and gone on with."""

from __future__ import annotations

from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from matplotlib.figure import Figure

from refocus import outputs
from refocus.app.jobs import Progress, command_line
from refocus.app.parts import Tool, said_in_page
from refocus.data.images import read_image
from refocus.errors import InputError
from refocus.figures.charts import AFTER, BEFORE

_REPORT, _MAKING = "report-of-", "Making the report: about a minute for a small folder ..."


def _curve(losses: dict[str, list[float]]) -> Figure:
    page = Figure(figsize=(5, 2.6), layout="constrained")
    axes = page.subplots()
    for (title, values), colour, marker in zip(
        losses.items(), (BEFORE, AFTER), ("o", "s"), strict=True
    ):
        axes.plot(
            range(1, len(values) + 1),
            values,
            color=colour,
            marker=marker,
            markersize=4,
            label=title,
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return page


def _chosen(name: str | None) -> str:
    if not name:
        raise gr.Error("choose a run, or start one", print_exception=False)
    return name


def tune_tab(tool: Tool, tabs: Any, compare: dict[str, Any]) -> None:
    if tool.folders is None:
        gr.Markdown("Start the app with a folder of images and one of masks to tune on it.")
        return
    folders = tool.folders
    gr.Markdown(
        f"Tunes on **{escape(str(folders.images))}** with the masks in "
        f"**{escape(str(folders.masks))}**."
    )
    with gr.Row():
        objective = gr.Dropdown(
            ["refocus", "relevance"],
            value="refocus",
            label="Objective",
            info="refocus: ours. relevance: the paper's.",
        )
        shots = gr.Number(
            3, label="Images per class", info="Of half of the classes.", precision=0, minimum=1
        )
        epochs = gr.Number(
            20,
            label="Epochs",
            info="Passes over these images.",
            precision=0,
            minimum=1,
            elem_id="tune-epochs",
        )
    run = gr.Dropdown(
        [],
        value=None,
        label="Run",
        info="Of this app and of earlier ones in the same work folder.",
        elem_id="tune-run",
    )
    with gr.Row():
        start = gr.Button("Start", variant="primary", elem_id="tune-start")
        stop = gr.Button("Stop", elem_id="tune-stop")
        again = gr.Button("Resume", elem_id="tune-resume")
    said = gr.Markdown("Not started.", elem_id="tune-said")
    with gr.Row():
        curve = gr.Plot(label="Losses")
        maps = gr.Gallery(label="Maps as they are now", columns=4, height=240, allow_preview=False)
    with gr.Row():
        use = gr.Button("Open in Compare", interactive=False, elem_id="tune-open")
        report = gr.Button("Make the report", interactive=False, elem_id="tune-report")
    link = gr.HTML(elem_id="tune-link")
    progress, timer = gr.State(None), gr.Timer(1.0, active=False)

    off = gr.update(interactive=False)

    def watched(name: str, words: str = "Reading ...") -> list[Any]:
        """Nothing of another run is left to be seen."""
        return [
            Progress(tool.jobs[name].folder),
            gr.Timer(active=True),
            words,
            None,
            None,
            off,
            off,
            "",
        ]

    def opened() -> list[Any]:
        """A new tab has the runs to choose from, and is at the one that is running."""
        name = tool.jobs.running_run()
        shown = watched(name) if name else [gr.skip() for _ in seen]
        return [gr.update(choices=tool.jobs.runs(), value=name), *shown]

    def begun(objective_: str, shots_: int | None, epochs_: int | None) -> list[Any]:
        if not shots_ or not epochs_:
            raise gr.Error(
                "images per class and epochs: both are needed, at least 1", print_exception=False
            )
        name = f"run-{datetime.now():%Y%m%d-%H%M%S}"
        folder = tool.work / name
        model = tool.refs.get("against", tool.refs["model"])
        command = command_line(
            "tune",
            model=model,
            images=folders.images,
            masks=folders.masks,
            out=folder,
            objective=objective_,
            shots=int(shots_),
            epochs=int(epochs_),
            skip_bad=True,
            fewer=True,
        )
        with said_in_page():
            tool.work.mkdir(parents=True, exist_ok=True)
            tool.jobs.start(name, command, folder)
        return [gr.update(choices=tool.jobs.runs(), value=name), *watched(name, "Starting ...")]

    def resumed(name: str | None) -> list[Any]:
        name = _chosen(name)
        folder = tool.jobs[name].folder
        with said_in_page():
            tool.jobs.start(name, command_line("tune", resume=folder), folder)
        return [gr.Timer(active=True), "Going on ..."]

    def tick(name: str, state: Progress) -> list[Any]:
        job = tool.jobs[name]
        losses = (
            state.losses()
            if (state.folder / "history.jsonl").exists()
            else {"training": [], "validation": []}
        )
        done = len(losses["validation"])
        if job.running:
            words = f"Running: epoch {done} done."
        elif job.complete:
            words = f"Done: {outputs.read_json(state.folder / 'results.json')['finding']}."
        elif job.failed:
            words = job.words or "It failed; start the app in a terminal to see why."
        else:
            words = f"Stopped after epoch {done}. Resume goes on from there."
        making = tool.jobs.jobs.get(_REPORT + name)
        busy = making is not None and making.running
        if busy:
            page = _MAKING
        elif (state.folder / "report.html").exists():
            page = f'<a href="/pages/{name}/report.html" target="_blank">Open the report</a>'
        else:
            page = escape(making.words or "Stopped.") if making else ""
        ready = gr.update(interactive=job.complete and not busy)
        timer_ = gr.Timer(active=job.running or busy)
        try:
            tiles = state.maps()
        except InputError as error:  # the model that an old run started from may be gone
            tiles, words = [], escape(str(error))
        return [words, _curve(losses) if done else None, tiles, ready, ready, page, timer_]

    def halted(name: str | None) -> str:
        name = _chosen(name)
        for key in (name, _REPORT + name):
            if key in tool.jobs:
                tool.jobs[key].stop()
        return "Stopping ..."

    def reported(name: str) -> list[Any]:
        folder = tool.jobs[name].folder
        with said_in_page():
            tool.jobs.start(_REPORT + name, ["report", str(folder)], folder)
        return [gr.Timer(active=True), _MAKING]

    seen = [progress, timer, said, curve, maps, use, report, link]
    gr.on(fn=opened, outputs=[run, *seen])  # when the page is loaded
    run.input(watched, run, seen)
    start.click(begun, [objective, shots, epochs], [run, *seen])
    again.click(resumed, run, [timer, said])
    stop.click(halted, run, said)
    timer.tick(
        tick, [run, progress], [said, curve, maps, use, report, link, timer], show_progress="hidden"
    )
    use.click(lambda name: [name, gr.Tabs(selected="compare")], run, [compare["run"], tabs])
    report.click(reported, run, [timer, link])


def audit_tab(tool: Tool, tabs: Any, compare: dict[str, Any]) -> None:
    if tool.folders is None:
        gr.Markdown(
            "Start the app with a folder of images and one of masks to audit a model on it."
        )
        return
    folders = tool.folders
    gr.Markdown(
        "How much of the decision rests on the background, and the images on which it does most. "
        "Click one to open it in Compare."
    )
    with gr.Row():
        start = gr.Button("Audit", variant="primary", elem_id="audit-start")
        stop = gr.Button("Stop")
    said = gr.Markdown(elem_id="audit-said")
    worst = gr.Gallery(
        label="Images that lean on the background most",
        columns=4,
        allow_preview=False,
        elem_id="audit-worst",
    )
    link = gr.HTML()
    run, timer = gr.State(""), gr.Timer(1.0, active=False)

    def begun() -> list[Any]:
        name = f"audit-{datetime.now():%Y%m%d-%H%M%S}"
        folder = tool.work / name
        command = command_line(
            "audit",
            model=tool.refs["model"],
            images=folders.images,
            masks=folders.masks,
            out=folder,
        )
        with said_in_page():
            tool.work.mkdir(parents=True, exist_ok=True)
            tool.jobs.start(name, command, folder)
        return [name, gr.Timer(active=True), "Running ..."]

    def tick(name: str) -> list[Any]:
        job = tool.jobs[name]
        if job.running:
            return [gr.skip(), gr.skip(), gr.skip(), gr.Timer(active=True)]
        if not job.complete:
            return [job.words or "Stopped.", None, "", gr.Timer(active=False)]
        content = outputs.read_json(job.folder / "audit.json")
        rows = [
            (str(folders.images / row["image"]), f"-{row['fall']:.0%}")
            for row in content["worst_images"]
        ]
        page = f'<a href="/pages/{name}/audit.html" target="_blank">Open the audit</a>'
        return [
            content["verdict"],
            [(read_image(Path(path)), text) for path, text in rows],
            page,
            gr.Timer(active=False),
        ]

    def halted(name: str) -> str:
        if name:
            tool.jobs[name].stop()
        return "Stopped."

    def chosen(name: str, event: gr.SelectData) -> list[Any]:
        row = outputs.read_json(tool.jobs[name].folder / "audit.json")["worst_images"][event.index]
        return [read_image(folders.images / row["image"]), gr.Tabs(selected="compare")]

    start.click(begun, None, [run, timer, said])
    stop.click(halted, run, said)
    timer.tick(tick, run, [said, worst, link, timer], show_progress="hidden")
    worst.select(chosen, run, [compare["image"], tabs])
