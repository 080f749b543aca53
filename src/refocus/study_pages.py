"""The figures of the studies, and the page that shows a study: charts, numbers, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from refocus import charts, gallery, grid, runs
from refocus.attention import logits_of
from refocus.evaluation import class_folder_names
from refocus.families import view
from refocus.grid import Job
from refocus.grounds import Ground
from refocus.images import read_image
from refocus.metrics import group_differences
from refocus.models import load, preprocessing
from refocus.records import Prediction
from refocus.report import page, to_picture
from refocus.studies import ORIGINAL, PUBLISHED
from refocus.study_tables import METRICS, Line
from refocus.subsets import CONFIDENCE, sufficient_subsets
from refocus.tables import Row

ENDS = 50  # classes shown at each end of figures 8 to 14, as in the paper
NOTE = (
    "After a change, in brackets, its 95 % bootstrap interval over images, paired with the original on the same images. "
    "± is the standard deviation over seeds. Rows in italics: the paper's numbers, on its own models and data; beside a user's own "
    "folder those of ViT-B on the nearest data set."
)


def accuracy_charts(lines: Sequence[Line], before: str = ORIGINAL.title) -> list[dict[str, str]]:
    """One chart for each model and suite: every method against the original."""
    shown = []
    metric = lines[0].metric if lines else ""
    for model, suite in dict.fromkeys((line.model, line.suite) for line in lines):
        some = [line for line in lines if (line.model, line.suite, line.metric) == (model, suite, metric)]
        starts = {line.classes: line for line in some if line.method == before}
        rest = [line for line in some if line.method != before]
        rows, befores = [], []
        for line in rest:
            start = starts[line.classes]
            name = line.method if line.classes == "all" else f"{line.method}, {line.classes}"
            rows.append(Row(name, metric, line.n, line.value, _pair(line.low, line.high), "", start.value))
            befores.append(_pair(start.low, start.high))
        if rows and metric in ("top1", "top5"):
            picture = charts.accuracies(rows, befores, ("original", "tuned"))
            shown.append({"title": f"{model}: {suite}, {METRICS[metric]}", "picture": picture})
    return shown


def _pair(low: float | None, high: float | None) -> list[float] | None:
    return None if low is None or high is None else [low, high]


def sample_charts(lines: Sequence[Line], classes: int) -> list[dict[str, str]]:
    """Figure 7: top-1 over samples per class (published: 3), and over the number of classes (published: half)."""
    shown = []
    half = max(1, classes // 2)
    for model in dict.fromkeys(line.model for line in lines):
        for title, word, usual in (("Samples per class", "a class", 3), ("Number of classes", "classes", half)):
            series = {}
            for suite in dict.fromkeys(line.suite for line in lines):
                some = [line for line in lines if (line.model, line.suite) == (model, suite)]
                points = {int(line.method.split()[0]): line for line in some if line.method.endswith(word)}
                points[usual] = next(line for line in some if line.method == PUBLISHED.title)
                start = next(line for line in some if line.method == ORIGINAL.title)
                series[suite] = (dict(sorted(points.items())), start)
            shown.append({"title": f"{model}: {title}", "picture": charts.series(series, title.lower())})
    return shown


def class_charts(ground: Ground, models: Sequence[str], suites: Sequence[str], out: Path) -> tuple[list[Any], Any]:
    """Figures 8 to 14: the classes that gain and lose most, and the change of every class for the records."""
    shown, every = [], {}
    for model in models:
        names = class_folder_names(load(ground.models[model]))
        for suite in suites:
            before, after = (_flat(grid.answers(Job(model, v), ground, suite, out)) for v in (ORIGINAL, PUBLISHED))
            rows = group_differences(after, before, lambda p, names=names: names[p.label])  # type: ignore[misc]
            every[f"{model}: {suite}"] = rows
            moved = [r for r in rows if r["difference"]["interval"] and r["top1"] != r["before"]]
            ends = moved if len(moved) <= 2 * ENDS else moved[:ENDS] + moved[-ENDS:]
            if ends:
                shown.append({"title": f"{model}: {suite}, change of top-1 by class", "picture": charts.changes(ends)})
    return shown, every


def _flat(levels: dict[str, list[Prediction]]) -> list[Prediction]:
    """All levels in one list; the level becomes part of the image's name."""
    return [replace(p, image=f"{level}/{p.image}") for level, found in levels.items() for p in found]


def galleries(ground: Ground, models: Sequence[str], suites: Sequence[str], out: Path, count: int = 4) -> list[dict[str, Any]]:
    """Figures 2, 3 and 6: corrected, spoiled and kept images with both maps, chosen by rule."""
    groups = []
    for model in models:
        pair = {"original": load(ground.models[model]), "tuned": load(Job(model, PUBLISHED).folder(out) / "model")}
        names = class_folder_names(pair["tuned"])
        for suite in suites:
            before, after = (grid.answers(Job(model, v), ground, suite, out) for v in (ORIGINAL, PUBLISHED))
            level = next(iter(before))
            tests = ground.tests(suite, pair["tuned"])[level]
            samples = {s.image.relative_to(tests.root).as_posix(): s for s in tests.samples}
            for group in gallery.outcomes(before[level], after[level], count):
                cards = []
                for image in group.shown:
                    sample = samples[image]
                    tiles = gallery.tiles(pair, read_image(sample.image), None, [sample.label] * 2)
                    cards.append(gallery.Card(image, names[sample.label], tiles))
                title = f"{model}, {suite}{' ' + level if level else ''}: {group.title.lower()}"
                groups.append({"title": title, "rule": group.rule, "total": group.total, "cards": cards})
    return groups


# --- appendix A -----------------------------------------------------------------------------------------------------------


def subset_study(
    ground: Ground, model: str, *, images: int = 4, labels: int = 5, seed: int = 0, rounds: int = 100
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Sufficient subsets of random test images, for the predicted class and for random others: numbers, and pictures."""
    network = load(ground.models[model])
    view(network)
    suite = "imagenet" if "imagenet" in ground.suites else next(iter(ground.suites))
    tests = next(iter(ground.tests(suite, network).values()))
    names = class_folder_names(network)
    rng = np.random.default_rng(seed)
    picked = [tests.samples[i] for i in rng.choice(len(tests.samples), min(images, len(tests.samples)), replace=False)]
    others = rng.choice(len(names), min(labels, len(names)), replace=False).tolist()
    config = preprocessing(network)
    rows, groups = [], []
    for sample in picked:
        pixels = tests.transform(tests.read(sample))
        with torch.inference_mode():
            predicted = int(logits_of(network, pixels[None]).argmax())
        targets = torch.tensor([predicted, *others])
        found = sufficient_subsets(network, pixels[None].repeat(len(targets), 1, 1, 1), targets, rounds=rounds)
        picture = to_picture(pixels, config["mean"], config["std"])
        tiles = [gallery.Tile(gallery.data_uri(picture), "image", names[sample.label])]
        for position, target in enumerate(targets.tolist()):
            ok, share = bool(found.found[position]), float(found.share[position])
            rows.append(
                {
                    "image": sample.image.name,
                    "target": names[target],
                    "predicted": target == predicted,
                    "found": ok,
                    "share": share if ok else None,
                    "confidence": float(found.confidence[position]) if ok else None,
                }
            )
            kept = found.pixels[position].numpy()[..., None]
            text = f"{float(found.confidence[position]):.1%} from {share:.1%} of the pixels" if ok else "none found"
            tiles.append(gallery.Tile(gallery.data_uri(np.where(kept, picture, 255).astype(np.uint8)), names[target], text))
        groups.append(
            {
                "title": sample.image.name,
                "total": 1,
                "rule": "drawn at random",
                "cards": [gallery.Card("", names[sample.label], tiles)],
            }
        )
    foreign = [r for r in rows if not r["predicted"]]
    reached = [r["share"] for r in foreign if r["found"]]
    numbers = {
        "model": model,
        "pairs": len(foreign),
        "reached": 100 * len(reached) / len(foreign) if foreign else None,
        "median_share": float(np.median(reached)) if reached else None,
        "confidence": CONFIDENCE,
        "rows": rows,
    }
    return numbers, groups


# --- the page -------------------------------------------------------------------------------------------------------------


def write_page(
    file: Path, title: str, about: str, *, table: str = "", shown: Sequence[dict[str, str]] = (), groups: Sequence[Any] = (),
    facts: dict[str, Any],
) -> None:  # fmt: skip
    """One self-contained page; table: Markdown, as `study_tables.markdown` makes it."""
    lines = [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    head, rows = (lines[0], lines[2:]) if lines else ([], [])
    content = page(
        "study.html.j2", title=title, about=about, charts=shown, head=head, rows=rows, note=NOTE, groups=groups, facts=facts,
        tile_columns=7,
    )  # fmt: skip
    runs.write_text(file, content)
