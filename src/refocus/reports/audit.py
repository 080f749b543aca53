"""How much of a model's decision rests on the background: numbers, worst classes, worst images, one
page.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from refocus import outputs
from refocus.data import shifts
from refocus.data.images import mask_of, read_image
from refocus.evaluation import prove
from refocus.evaluation.classify import read_predictions
from refocus.evaluation.metrics import group_differences
from refocus.evaluation.plan import How, Plan
from refocus.figures import charts
from refocus.figures.html import page
from refocus.figures.tables import Row, accuracy_rows, as_csv, other_rows
from refocus.masks import trust
from refocus.records import Prediction, Sample, read_lines
from refocus.reports import gallery
from refocus.vit.classes import class_folder_names

SHIFTS = ("mixed-same", "mixed-rand", "only-fg", "only-bg", "outline")
_SUITE = "images"
_CARDS = 8


def audit(
    model: nn.Module,
    images: Path,
    masks: Path,
    how: How,
    *,
    facts: dict[str, Any],
    mask_score: float = 0.5,
    mask_polarity: str = "ask",
    most: int | None = 300,
    faithful: int = 0,
) -> dict[str, Any]:
    """Measure a model on an ImageFolder with masks; writes records, audit.json, audit.csv and
    audit.html into `how.folder`.

    Args:
        facts: what the page says of the model, the images and the masks: "model", "images",
            "masks", "automatic".
        most: at most so many images for what needs masks, spread over the classes.

    Returns:
        What audit.json holds.
    """
    models = {"model": model}
    plan = Plan(
        {_SUITE: images},
        {_SUITE: masks},
        SHIFTS,
        mask_score=mask_score,
        mask_polarity=mask_polarity,
        most=most,
        faithful=faithful,
    )
    entry = prove.prove(models, plan, how)[_SUITE]
    place = how.folder / "records" / _SUITE
    answers = {
        stage: read_predictions(place / f"{stage}.model.jsonl")
        for stage in ("standard", "mixed-same", "mixed-rand")
    }
    shares = {x["image"]: x.get("background_share") for x in read_lines(place / "maps.model.jsonl")}
    classes = _classes(answers, shares, class_folder_names(model), how.seed)
    worst = worst_images(answers["mixed-same"], answers["mixed-rand"], _CARDS)
    content = {
        **facts,
        "seed": how.seed,
        "verdict": verdict(entry),
        "entry": entry,
        "classes": classes,
        "worst_images": worst,
    }
    outputs.write_json(how.folder / "audit.json", content)
    rows = [*accuracy_rows({_SUITE: entry}), *other_rows({_SUITE: entry})]
    outputs.write_text(how.folder / "audit.csv", as_csv(rows))
    opened = plan.open(_SUITE, model)
    samples = trust.masked(opened.samples, masks, plan.mask_score)
    cards = _cards(model, samples, worst, images, how.seed)
    outputs.write_text(
        how.folder / "audit.html", _page(entry, classes, cards, {**facts, "seed": how.seed})
    )
    return content


def verdict(entry: dict[str, Any]) -> str:
    """One sentence, by the interval of the BG-gap and McNemar's test, then by the interval of the
    change of confidence.
    """
    found = entry["background"]["model"]
    gap = found["bg_gap"]
    if not gap["interval"]:
        return "Too few images could be read to say anything; see the records."
    low, high = gap["interval"]
    change = (
        f"top-1 is {found['mixed_same']['top1']:.1f} % when an object stands on the background of "
        "another image of its class, and "
        f"{found['mixed_rand']['top1']:.1f} % on that of another class"
    )
    if gap["mcnemar"] < 0.05 and low > 0:
        return (
            f"This model uses the background: {change} (gap {gap['value']:.1f} points, 95 %: "
            f"{low:.1f} to {high:.1f})."
        )
    if gap["mcnemar"] < 0.05 and high < 0:
        return (
            "This model does better on other classes' backgrounds, which should not be: "
            f"{change}. Look at the masks first."
        )
    unclear = (
        f"the gap is {gap['value']:+.1f} points, and anything from {low:.1f} to {high:.1f} "
        "fits what was seen"
    )
    lost = _turned(found["confidence_change"]["interval"])
    if lost and lost[0] > 0:
        fall = f"{-found['confidence_change']['value']:.2f} (95 %: {lost[0]:.2f} to {lost[1]:.2f})"
        return (
            "The background plays a part in this model's confidence, but no lost answers can be "
            "shown with these images: its "
            f"confidence in the true class falls by {fall} when the background comes from another "
            f"class; for top-1 {unclear}."
        )
    return (
        f"No use of the background can be shown with these images: {unclear}. More images "
        "would narrow it."
    )


def _classes(
    answers: dict[str, list[Prediction]],
    shares: dict[str, float | None],
    names: list[str],
    seed: int,
) -> list[dict[str, Any]]:
    """One row per class, the largest gap first."""
    gaps = group_differences(
        answers["mixed-same"], answers["mixed-rand"], lambda p: names[p.label], seed
    )
    plain: dict[str, list[bool]] = {}
    share: dict[str, list[float]] = {}
    seen = {p.image for p in answers["mixed-same"]}
    for p in answers["standard"]:
        if p.image in seen:
            plain.setdefault(names[p.label], []).append(p.right)
            value = shares.get(p.image)
            share.setdefault(names[p.label], []).extend([] if value is None else [value])
    return [
        {
            "name": row["name"],
            "n": row["difference"]["n"],
            "plain": 100 * float(np.mean(plain[row["name"]])),
            "same": row["top1"],
            "rand": row["before"],
            "gap": row["top1"] - row["before"],
            "interval": row["difference"]["interval"],
            "background_share": float(np.mean(share[row["name"]])) if share[row["name"]] else None,
        }
        for row in gaps
        if row["difference"]["interval"]
    ]


def worst_images(
    same: list[Prediction], rand: list[Prediction], count: int
) -> list[dict[str, Any]]:
    """Images right on their own class's background, the greatest fall of the true class's
    confidence on another's first.
    """
    other = {p.image: p for p in rand}
    rows: list[dict[str, Any]] = []
    for p in same:
        moved = other.get(p.image)
        if (
            moved
            and p.right
            and p.true_confidence is not None
            and moved.true_confidence is not None
        ):
            rows.append(
                {
                    "image": p.image,
                    "fall": p.true_confidence - moved.true_confidence,
                    "right": moved.right,
                }
            )
    return sorted(rows, key=lambda row: row["fall"], reverse=True)[:count]


def _cards(
    model: nn.Module, samples: list[Sample], worst: list[dict[str, Any]], root: Path, seed: int
) -> list[gallery.Card]:
    folders = class_folder_names(model)
    (same, _), (rand, _) = (
        shifts.shifts(samples, kind, seed)[0] for kind in ("mixed-same", "mixed-rand")
    )
    by_name = {s.image.relative_to(root).as_posix(): s for s in samples}
    cards = []
    for row in worst:
        sample = by_name[row["image"]]
        assert sample.mask is not None
        image = read_image(sample.image)
        mask = mask_of(sample, image)
        labels = [sample.label]
        shown = gallery.tiles({"as it is": model}, image, mask, labels)
        for title, shift in (("own class's background", same), ("other class's background", rand)):
            seen = gallery.tiles({title: model}, shift(sample), mask, labels)
            if title.startswith("other"):
                shown.append(replace(seen[0], title="swapped", caption="what it then sees"))
            shown.append(seen[-1])
        cards.append(gallery.Card(row["image"], folders[sample.label], shown))
    return cards


def _page(
    entry: dict[str, Any],
    classes: list[dict[str, Any]],
    cards: list[gallery.Card],
    facts: dict[str, Any],
) -> str:
    accuracies, others = accuracy_rows({_SUITE: entry}), other_rows({_SUITE: entry})
    found = entry["background"]["model"]
    only_bg = entry["shifts"]["only-bg"]
    gap, change = found["bg_gap"], found["confidence_change"]
    share = entry["maps"].get("background_share", {"value": None, "interval": None})
    lost = None if change["value"] is None else -change["value"]
    numbers = [
        _number(
            "BG-gap: top-1 lost with another class's background, points",
            gap["value"],
            gap["interval"],
            1,
        ),
        _number(
            "confidence in the true class lost by that swap", lost, _turned(change["interval"]), 2
        ),
        _number(
            f"top-1 from the background alone, % (chance {only_bg['chance']:.1f})",
            only_bg["top1"],
            only_bg["top1_interval"],
            1,
        ),
        _number("share of relevance on the background", share["value"], share["interval"], 2),
    ]
    shown = [
        {**row, "interval_text": Row("", "", 0, None, row["interval"], digits=0).interval_text}
        for row in classes
    ]
    return page(
        "audit.html.j2",
        facts=facts,
        entry=entry,
        verdict=verdict(entry),
        numbers=numbers,
        chart=charts.accuracies(accuracies, [None] * len(accuracies), ("", "")),
        accuracies=accuracies,
        others=others,
        classes=shown,
        cards=cards,
        tile_columns=6,
    )


def _turned(interval: list[float] | None) -> list[float] | None:
    return [-interval[1], -interval[0]] if interval else None


def _number(
    title: str, value: float | None, interval: list[float] | None, digits: int
) -> dict[str, str]:
    row = Row("", title, 0, value, interval, digits=digits)
    return {"title": title, "value": row.value_text, "interval": row.interval_text}
