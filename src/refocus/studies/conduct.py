"""A study from beginning to end: runs, table, figures, page.

And what it would take, before anything is run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from refocus import outputs
from refocus.data.folders import class_folders
from refocus.errors import InputError
from refocus.evaluation.plan import SEGMENTS
from refocus.objectives.registry import objective
from refocus.processes import Place
from refocus.records import to_json
from refocus.relevance.attention import logits_of
from refocus.results import GroupChange
from refocus.studies import figures, layouts, subset_study
from refocus.studies.datasets import KINDS, Ground
from refocus.studies.jobs import Job, run
from refocus.studies.layouts import Line
from refocus.studies.registry import PUBLISHED, Study, Variant, models_of, suites_of, variants_of
from refocus.vit.loading import load, preprocessing


@dataclass(frozen=True)
class Order:
    """What the user asked for.

    common: settings of every run, `rates` by objective. maps: images for the maps of Table 3.
    """

    name: str
    row: Study
    ground: Ground
    out: Path
    common: dict[str, Any]
    models_given: bool = False
    maps: int = 200
    workers: int = 0

    @property
    def models(self) -> list[str]:
        """Names of the models that are run."""
        return models_of(self.row, self.ground, self.models_given)

    @property
    def suites(self) -> list[str]:
        """Names of the suites that are measured."""
        every = [name for name in suites_of(self.row, self.ground) if name != SEGMENTS]
        return [] if self.row.layout == "segmentation" else every

    @property
    def variants(self) -> list[Variant]:
        """The rows of the study that can be run here."""
        return variants_of(self.row, self.ground, self.classes)

    @property
    def classes(self) -> int:
        """How many classes there are to train on."""
        return 2 * self.common.get("classes", self.ground.settings.get("classes", 0)) or len(
            class_folders(self.ground.train, "on")
        )

    @property
    def jobs(self) -> list[Job]:
        """Every model with every variant."""
        return (
            []
            if self.row.layout == "subsets"
            else [Job(model, v) for model in self.models for v in self.variants]
        )

    @property
    def map_images(self) -> int:
        """How many images have their maps measured."""
        wants = self.row.layout == "segmentation" or (
            self.row.layout == "claims" and SEGMENTS in self.ground.suites
        )
        return self.maps if wants else 0


def conduct(order: Order, place: Place, *, progress: bool = True) -> dict[str, Any]:
    """Run what is missing and write NAME.json, NAME.md, NAME.csv and NAME.html.

    Empty on a process other than the first.
    """
    if order.map_images and not order.ground.own and SEGMENTS not in order.ground.suites:
        raise InputError(
            f"‹data›: [suites] does not name {SEGMENTS}, which study {order.name} needs"
        )
    if order.row.layout != "segmentation" and not order.suites:
        raise InputError(
            f"‹data›: [suites] names none of those of study {order.name}: "
            f"{', '.join(order.row.suites)}"
        )
    run(
        order.jobs, order.ground, order.suites, order.out, order.common, place,
        maps=order.map_images, workers=order.workers, progress=progress,
    )  # fmt: skip
    if place.rank:
        return {}
    lines, shown, groups, extra = _findings(order)
    table = layouts.markdown(lines) if lines else ""
    title = f"{order.name}: {order.row.about}"
    content = {
        "study": order.name,
        "facts": _facts(order),
        "lines": [asdict(line) for line in lines],
        **extra,
    }
    outputs.write_json(order.out / f"{order.name}.json", content)
    outputs.write_text(
        order.out / f"{order.name}.md",
        f"# {title}\n\n{extra.get('text', table)}\n{figures.NOTE if table else ''}\n",
    )
    outputs.write_text(order.out / f"{order.name}.csv", layouts.as_csv(lines))
    figures.write_page(
        order.out / f"{order.name}.html",
        order.name,
        order.row.about,
        table=table,
        shown=shown,
        groups=groups,
        facts=content["facts"],
    )
    return {**content, "table": extra.get("text", table)}


def _findings(order: Order) -> tuple[list[Line], list[Any], list[Any], dict[str, Any]]:
    """Lines, charts, picture groups, and what else belongs into the JSON."""
    row, ground, out = order.row, order.ground, order.out
    given = (row, ground, order.models, order.variants, order.suites, out)
    if row.layout == "subsets":
        numbers, groups = subset_study.subset_study(ground, order.models[0])
        text = (
            f"{numbers['pairs']} pairs of an image and a random class: a subset above "
            f"{numbers['confidence']:.0%} confidence "
            f"was found for {numbers['reached']:.0f} %"
            + (
                f", at the median from {numbers['median_share']:.1%} of the pixels.\n"
                if numbers["median_share"]
                else ".\n"
            )
        )
        return [], [], groups, {"subsets": numbers, "text": text}
    if row.layout == "gallery":
        return (
            [],
            [],
            figures.galleries(ground, order.models, order.suites, out),
            {"text": "Pictures: see the page.\n"},
        )
    if row.layout == "per_class":
        shown, every = figures.class_charts(ground, order.models, order.suites, out)
        return [], shown, [], {"classes": to_json(every), "text": _class_text(every)}
    if row.layout == "claims":
        lines = layouts.methods(*given)
        lines += layouts.segmentation(*given) if order.map_images else []
        kind = next(iter(ground.masks))
        titles = {
            v.title: (v.method, "" if not v.tunes else v.masks or kind)
            for v in order.variants
            if v.method
        }
        sheet = layouts.claims(lines, titles)
        return lines, [], [], {"claims": sheet, "text": layouts.sheet_text(sheet)}
    if row.layout == "samples":
        lines = layouts.methods(*given)
        return lines, figures.sample_charts(lines, order.classes), [], {}
    lines = {
        "methods": layouts.methods,
        "seeds": layouts.seeds,
        "classes": layouts.classes,
        "segmentation": layouts.segmentation,
    }[row.layout](*given)
    return lines, figures.accuracy_charts(lines), [], {}


def _class_text(every: Mapping[str, Sequence[GroupChange]]) -> str:
    text = ""
    for title, rows in every.items():
        changes = [row.gain for row in rows]
        text += (
            f"{title}: {sum(c > 0 for c in changes)} classes gain, "
            f"{sum(c < 0 for c in changes)} lose, {changes.count(0)} stay.\n"
        )
        ends = [row for row in (*rows[:5], *rows[-5:]) if row.gain]
        text += "".join(f"  {row.gain:+.1f}  {row.name}\n" for row in ends)
    return text


def _facts(order: Order) -> dict[str, Any]:
    kinds = ", ".join(order.ground.masks)
    common = {key: value for key, value in order.common.items() if key != "rates"}
    rates = {
        v.name: outputs.read_json(file)["lr"] for v in order.variants for file in _results(order, v)
    }
    last = order.common.get("select") == "last"
    epoch = "the last epoch" if last else "the best epoch by validation loss, as in the paper"
    return {
        "models": ", ".join(f"{name} ({order.ground.models[name]})" for name in order.models),
        "masks": kinds,
        "suites": ", ".join(order.suites),
        "settings": json.dumps({**order.ground.settings, **common}, default=str),
        "learning rates": ", ".join(f"{name} {rate:g}" for name, rate in rates.items()),
        "weights measured": f"{epoch}; no do-no-harm rule",
        "versions": ", ".join(f"{k} {v}" for k, v in outputs.environment().items()),
    }


def _results(order: Order, variant: Variant) -> list[Path]:
    files = [Job(model, variant).folder(order.out) / "results.json" for model in order.models[:1]]
    return [file for file in files if file.exists()]


# --- before anything is run ---------------------------------------------------------------------

# images to answer, and GB on disk where a source was found; docs/studies.md has the sources
SIZES = {
    "imagenet": (50_000, 6.3),
    "imagenet-v2": (10_000, 1.3),
    "imagenet-a": (7_500, 0.7),
    "imagenet-r": (30_000, 2.2),
    "imagenet-sketch": (50_000, 8.4),
    "objectnet": (18_574, None),
    "si-location": (541_548, 19.6),
    "si-rotation": (39_540, 1.5),
    "si-size": (92_884, 3.5),
    SEGMENTS: (4_276, None),
    "train": (9_190, None),
}


def dry_run(order: Order) -> dict[str, Any]:
    """What a study would need.

    Each folder, whether it is there, how large it is; and the hours, from one timed step.
    """
    needed = {
        "train": order.ground.train,
        **{f"masks ({kind})": path for kind, path in order.ground.masks.items()},
    }
    needed |= {name: order.ground.suites[name] for name in order.suites}
    if order.map_images and not order.ground.own:
        needed[SEGMENTS] = order.ground.suites.get(SEGMENTS, Path("(not named)"))
    places: list[dict[str, Any]] = []
    for name, path in needed.items():
        images, size = SIZES.get(name, (None, None)) if not order.ground.own else (None, None)
        places.append(
            {
                "what": name,
                "path": str(path),
                "there": path.exists(),
                "images": images or _count(path),
                "gb": size,
            }
        )
    missing = [kind for kind in KINDS if kind not in order.ground.masks]
    absent = [s for s in order.row.suites if not order.ground.own and s not in order.ground.suites]
    hours = []
    for model in order.models:
        step, answer = time_step(order.ground.models[model])
        tuned = [v for v in order.variants if v.tunes] if order.jobs else []
        steps = sum(_steps(order, v) for v in tuned)
        images = sum(p["images"] or 0 for p in places if p["what"] in order.suites) * len(
            order.variants
        )
        seconds = steps * step + images * answer
        hours.append(
            {
                "model": model,
                "runs": len(tuned),
                "steps": steps,
                "images": images,
                "hours": seconds / 3600,
            }
        )
    return {
        "places": places,
        "masks not named": missing,
        "suites not named": absent,
        "models": hours,
    }


def _count(path: Path) -> int | None:
    return sum(1 for p in path.rglob("*") if p.is_file()) if path.is_dir() else None


def _steps(order: Order, variant: Variant) -> int:
    """Steps of one run, batch 8."""
    settings = {**order.ground.settings, **order.common, **variant.settings}
    shots = settings.get("shots", 3) * settings.get("classes", max(1, order.classes // 2))
    count: int = -(-shots // settings.get("batch_size", 8)) * settings.get("epochs", 50)
    return count


def time_step(ref: str) -> tuple[float, float]:
    """Seconds of one published step (batch 8) and of one answered image.

    With random weights, so that no hub is needed.
    """
    model = load(ref, pretrained=False)
    size = preprocessing(model)["input_size"]
    images, masks, labels = (
        torch.randn(8, *size),
        torch.rand(8, 1, *size[1:]),
        torch.zeros(8, dtype=torch.long),
    )
    step = objective(PUBLISHED.settings["objective"])
    times = []
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        step(model, images, masks, labels)["loss"].backward()
        middle = time.perf_counter()
        with torch.inference_mode():
            logits_of(model, images)
        times.append((middle - started, (time.perf_counter() - middle) / len(images)))
    return times[-1]
