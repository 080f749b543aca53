"""`refocus report`: the page, the Markdown and the CSV of a tuning run or of an evaluation, all
made from its records.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refocus import outputs
from refocus.data import shifts
from refocus.data.images import mask_of, read_image
from refocus.errors import InputError
from refocus.evaluation import plan as plans
from refocus.evaluation import prove
from refocus.evaluation.classify import read_predictions
from refocus.evaluation.suites import PROTOCOLS, SUITES, plain
from refocus.figures import charts
from refocus.figures.html import page
from refocus.figures.tables import Row, accuracy_rows, as_csv, markdown, other_rows
from refocus.masks import trust
from refocus.records import Sample
from refocus.reports import gallery
from refocus.tuning.recipe import recipe_of
from refocus.tuning.results import TuneResults, results_of
from refocus.tuning.selection import from_json, trained_classes
from refocus.vit import loading, own_models
from refocus.vit.classes import class_folder_names
from refocus.vit.families import view
from refocus.vit.loading import load

log = logging.getLogger("refocus")
SHIFTS = ("mixed-same", "mixed-rand", "only-fg", "only-bg", "location", "size", "rotation")
LABELS = ("original", "tuned")
HELD_OUT = "held-out"
_AXES = {"size": "box of the object, % of the image", "rotation": "degrees, counter-clockwise"}
_TITLES = {"size": "Object size", "rotation": "Object rotation", "location": "Object location"}
_ENDS = 10  # classes shown that gain most, and that lose most


def prove_run(
    run: Path,
    *,
    suites: dict[str, Path],
    masks: dict[str, Path],
    most: int | None,
    faithful: int,
    workers: int,
    device: torch.device,
    code: str | None = None,
    seed: int = 0,
) -> Path:
    """Measure a tuning run's original against its tuned model; without suites on the images it did
    not train on.

    Returns:
        The folder of the evaluation; what it holds already is not computed again.
    """
    if not (run / outputs.MANIFEST).exists():
        raise InputError(f"{run}: this run is not complete; resume it first, with `refocus tune`")
    recipe = recipe_of(run)
    selection = from_json(outputs.read_json(run / "selection.json"))
    if not suites:
        suites, masks = (
            {HELD_OUT: Path(recipe.val or recipe.images)},
            {HELD_OUT: Path(recipe.val_masks or recipe.masks)},
        )
    plan = plans.Plan(
        suites,
        masks,
        (*SHIFTS, *shifts.unseen(real=recipe.backgrounds is not None)) if masks else (),
        faithful=faithful,
        mask_score=recipe.mask_score,
        mask_polarity=recipe.mask_polarity,
        most=most,
        leave_out=frozenset(s.image.resolve() for s in selection.train),
        backgrounds=Path(recipe.backgrounds) if recipe.backgrounds else None,
    )
    original = own_models.recorded(recipe.model, code)
    tuned = own_models.tuned(run / "model", code if original.startswith("py:") else None)
    models = loading.load_models(tuned, original, device)
    plans.check(models, plan)
    folder = _place(run, plans.settings(tuned, recipe.model, plan, seed))
    if not (folder / outputs.MANIFEST).exists():
        how = plans.How(
            folder, workers=workers, seed=seed, trained=trained_classes(str(run / "model"))
        )
        content = {
            "model": outputs.resolved(tuned),
            "against": outputs.resolved(recipe.model),
            "seed": seed,
            "suites": prove.prove(models, plan, how),
        }
        outputs.write_json(folder / "results.json", content)
        outputs.finish(folder, "evaluate", seed=seed)
    return folder


def _place(run: Path, settings: dict[str, Any]) -> Path:
    """RUN/proof, or where other suites or options were measured there, the first of RUN/proof-2,
    ... that is free or the same.
    """
    for number in count(1):
        folder = run / ("proof" if number == 1 else f"proof-{number}")
        kept = folder / "settings.json"
        if not kept.exists() or outputs.read_json(kept) == settings:
            return outputs.resumable(folder, True, settings)
    raise AssertionError  # count() does not end


def write(
    evaluation: Path,
    out: Path,
    *,
    run: Path | None = None,
    code: str | None = None,
    device: torch.device,
) -> None:
    """report.html, report.md, report.csv and classes.csv into `out`, from an evaluation's folder;
    `run` adds what was done.
    """
    content = outputs.read_json(evaluation / "results.json")
    settings = outputs.read_json(evaluation / "settings.json")
    entries, seed = content["suites"], content["seed"]
    paired = content["against"] is not None
    rows, others = accuracy_rows(entries), other_rows(entries)
    models = {"tuned": load(own_models.recorded(content["model"], code), device=device)}
    if paired:
        models = {
            "original": load(own_models.recorded(content["against"], code), device=device),
            **models,
        }
    classes = _class_rows(entries)
    context = {
        "headline": _headline(entries, content, run),
        "facts": _facts(evaluation, content, run),
        "recipe": outputs.read_json(run / "recipe.json") if run else {},
        "paired": paired,
        "accuracies": rows,
        "others": others,
        "chart": charts.accuracies(rows, _before_intervals(entries), LABELS) if rows else "",
        "shifts": {
            kind: found["about"]
            for entry in entries.values()
            for kind, found in entry.get("shifts", {}).items()
        },
        "protocols": PROTOCOLS if any(name in SUITES for name in entries) else {},
        "curves": _curves(entries),
        "trained": _split_rows(entries, "trained_differences"),
        "groups": _group_rows(entries),
        "classes": _classes(entries),
        "probes": "probes/probes.html" if run and (run / "probes" / "probes.html").exists() else "",
        "galleries": _galleries(evaluation, settings, entries, models, seed) if paired else [],
    }
    files = {
        "report.html": page("report.html.j2", **context, tile_columns=4),
        "report.md": _markdown(context),
        "report.csv": as_csv([*rows, *others]),
        "classes.csv": as_csv(classes),
    }
    for name, text in files.items():
        if (out / name).exists():
            log.info("%s: written anew", out / name)
        outputs.write_text(out / name, text)


# --- words --------------------------------------------------------------------------------------


def _headline(entries: dict[str, Any], content: dict[str, Any], run: Path | None) -> dict[str, str]:
    parts = []
    for name, entry in entries.items():
        found = {"as they are": entry} if entry["kind"] == "classification" else {}
        if "mixed-rand" in entry.get("shifts", {}):
            found["with another class's background"] = entry["shifts"]["mixed-rand"]
        for title, part in found.items():
            (row,) = accuracy_rows({name: {"protocols": {"": part}}})
            numbers = f"{row.value_text} %"
            if row.before is not None:
                numbers = (
                    f"{row.before_text} -> {numbers} ({row.difference_text} points, 95 %: "
                    f"{row.difference_interval_text})"
                )
            parts.append(f"{name}, {title}: top-1 {numbers}")
    results = results_of(run) if run else None
    shots = len(outputs.read_json(run / "selection.json")["train"]) if run else 0
    title = "Before and after" if content["against"] else f"Evaluation of {content['model']}"
    if results:
        title = f"Refocused with {shots} images of {len(results.trained_classes)} classes"
    caution = ""
    if HELD_OUT in entries:
        caution = (
            "These images were not trained on, but some of them chose the best epoch and the "
            "weights that were kept. Images that "
            "the run never saw are the stronger test: give `refocus report` a suite of such images "
            "and its masks."
        )
    return {
        "title": title,
        "sentence": "; ".join(parts) + "." if parts else "",
        "verdict": _verdict(results) if results else "",
        "caution": caution,
    }


def _verdict(results: TuneResults) -> str:
    """The run's own, and what was kept where it was overruled."""
    sentence = results.verdict.sentence
    if results.chosen_share == results.advised_share:
        return sentence
    return (
        f"{sentence} The rule was switched off: {results.chosen_share:.0%} of the way to the tuned "
        "weights was kept."
    )


def _facts(evaluation: Path, content: dict[str, Any], run: Path | None) -> dict[str, str]:
    facts = {
        "model": content["model"],
        "compared with": content["against"] or "-",
        "seed of the evaluation": str(content["seed"]),
    }
    if run:
        recipe, results = outputs.read_json(run / "recipe.json"), results_of(run)
        selection = outputs.read_json(run / "selection.json")
        facts |= {
            "objective": recipe["objective"],
            "images trained on": f"{len(selection['train'])} ({recipe['shots']} each of "
            f"{len(results.trained_classes)} classes)",
            "validated on": f"{len(selection['select'])} images for the epoch, "
            f"{len(selection['check'])} for the do-no-harm rule",
            "epochs": f"{recipe['epochs']}, best {results.best_epoch}",
            "learning rate": f"{results.lr:g}",
            "seed of the run": str(recipe["seed"]),
        }
    versions = outputs.read_json(evaluation / outputs.MANIFEST)["environment"]
    return {
        **facts,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _markdown(context: dict[str, Any]) -> str:
    headline = context["headline"]
    parts = [
        f"# {headline['title']}",
        headline["verdict"],
        headline["sentence"],
        headline["caution"],
    ]
    for title, rows in (
        ("Accuracy (top-1, %)", context["accuracies"]),
        ("Background, maps and calibration", context["others"]),
    ):
        parts += [f"## {title}", markdown(rows)] if rows else []
    parts += [
        "## What was done",
        "\n".join(f"- {key}: {value}" for key, value in context["facts"].items()),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


# --- tables and charts --------------------------------------------------------------------------


def _before_intervals(entries: dict[str, Any]) -> list[list[float] | None]:
    """Of each row of `accuracy_rows`, the interval of the model before."""
    found = []
    for entry in entries.values():
        parts = [*entry.get("protocols", {}).values(), *entry.get("shifts", {}).values()]
        found += [part.get("against", {}).get("top1_interval") for part in parts]
    return found


def _curves(entries: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name, entry in entries.items():
        for kind, part in entry.get("shifts", {}).items():
            if "levels" in part:
                chart = (
                    charts.places(part, LABELS)
                    if kind == "location"
                    else charts.curve(part, _AXES[kind], LABELS)
                )
                found.append(
                    {
                        "title": f"{_TITLES[kind]} ({name})",
                        "about": part["about"],
                        "n": part["n"],
                        "chart": chart,
                    }
                )
    return found


def _split_rows(entries: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = []
    for name, entry in entries.items():
        parts = {
            name: entry,
            **{f"{name}: {kind}": part for kind, part in entry.get("shifts", {}).items()},
        }
        for title, part in parts.items():
            for row in part.get(key, []):
                cells = _class_row(title, row)
                texts = {
                    "before": cells.before_text,
                    "after": cells.value_text,
                    "difference": cells.difference_text,
                    "interval": cells.difference_interval_text,
                }
                found.append({"suite": title, "name": row["name"], "n": cells.n, **texts})
    return found


def _group_rows(entries: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each suite the group with the lowest accuracy first."""
    found = []
    for name, entry in entries.items():
        changes = {row["name"]: row for row in entry.get("group_differences", [])}
        for row in entry.get("groups", []):
            change = changes.get(
                row["name"], {"before": None, "difference": {"top1": None, "interval": None}}
            )
            values = (
                change["before"],
                change["difference"]["top1"],
                change["difference"]["interval"],
            )
            cells = Row(name, row["name"], row["n"], row["top1"], row["top1_interval"], "", *values)
            found.append({"suite": name, "name": row["name"], "n": row["n"], "row": cells})
    return found


def _class_row(suite: str, row: dict[str, Any]) -> Row:
    change = row["difference"]
    difference = row["top1"] - row["before"]
    values = (row["before"], difference, change["interval"])
    return Row(
        suite, row["name"], change["n"], row["top1"], None, "", *values, chance=change["mcnemar"]
    )


def _class_rows(entries: dict[str, Any]) -> list[Row]:
    return [
        _class_row(name, row)
        for name, entry in entries.items()
        for row in entry.get("class_differences", [])
    ]


def _classes(entries: dict[str, Any]) -> dict[str, Any]:
    """The classes that gain and lose most in the first suite that has classes."""
    for name, entry in entries.items():
        rows = [row for row in entry.get("class_differences", []) if row["difference"]["interval"]]
        if not rows:
            continue
        changed = [row["top1"] - row["before"] for row in rows]
        moved = [row for row, change in zip(rows, changed, strict=True) if change]
        both_ends = moved if len(moved) <= 2 * _ENDS else moved[:_ENDS] + moved[-_ENDS:]
        return {
            "suite": name,
            "gained": sum(c > 0 for c in changed),
            "lost": sum(c < 0 for c in changed),
            "same": sum(c == 0 for c in changed),
            "decided": sum(_class_row("", row).decided != 0 for row in rows),
            "chart": charts.changes(both_ends) if both_ends else "",
        }
    return {}


# --- gallery ------------------------------------------------------------------------------------


def _galleries(
    evaluation: Path,
    settings: dict[str, Any],
    entries: dict[str, Any],
    models: dict[str, nn.Module],
    seed: int,
) -> list[dict[str, Any]]:
    """Corrected, spoiled and unchanged images of the first suite of the user's own: as they are,
    and with swapped backgrounds.
    """
    own = [
        name
        for name, entry in entries.items()
        if entry["kind"] == "classification" and name not in SUITES
    ]
    try:
        for model in models.values():
            view(model)
    except InputError as error:
        log.warning("no pictures: %s", error)
        return []
    if not own:
        return []
    plan, name = plans.plan_of(settings, evaluation / "settings.json"), own[0]
    opened = {which: plan.open(name, model) for which, model in models.items()}
    tests = opened["tuned"]
    every = zip(*(t.samples for t in opened.values()), strict=True)
    labels = {same[0].image: [s.label for s in same] for same in every}
    stages: list[tuple[str, str, Callable[[Sample], Any]]] = [
        (entries[name]["protocol"], "as they are", plain)
    ]
    samples = (
        trust.masked(tests.samples, plan.masks[name], plan.mask_score) if name in plan.masks else []
    )
    trusted = {s.image for s in samples}
    if "mixed-rand" in entries[name].get("shifts", {}):
        stages.append(
            (
                "mixed-rand",
                "with another class's background",
                shifts.shifts(samples, "mixed-rand", seed)[0][0],
            )
        )
    by_name = {s.image.relative_to(tests.root).as_posix(): s for s in tests.samples}
    parts = []
    for stage, title, read in stages:
        place = evaluation / "records" / name
        before, after = (
            read_predictions(place / f"{stage}.{which}.jsonl") for which in ("against", "model")
        )
        groups = []
        for group in gallery.outcomes(before, after):
            cards = []
            for image in group.shown:
                sample = by_name[image]
                mask = _mask(sample) if sample.image in trusted else None
                shown = gallery.tiles(models, read(sample), mask, labels[sample.image])
                cards.append(
                    gallery.Card(image, class_folder_names(models["tuned"])[sample.label], shown)
                )
            groups.append(
                {"title": group.title, "rule": group.rule, "total": group.total, "cards": cards}
            )
        parts.append({"title": f"Images of {name} {title}", "groups": groups})
    return parts


def _mask(sample: Sample) -> Tensor | None:
    """An image's mask where it has a usable one."""
    try:
        return mask_of(sample, read_image(sample.image)) if sample.mask else None
    except InputError:
        return None
