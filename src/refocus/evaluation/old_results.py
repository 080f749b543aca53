"""`results.json` and `audit.json` of the first version, which wrote no schema, as those of today.

Only dictionaries in, dictionaries out: `stored` checks what comes out. Calibration errors are left
out, because the first version measured another one (the expected, not the squared).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refocus.results import SCHEMA

Old = Mapping[str, Any]  # a part of an old file
New = dict[str, Any]  # the same as a part of a new one


def evaluation(content: Old) -> New:
    """`results.json` of an evaluation."""
    return {
        "schema": SCHEMA,
        "model": content["model"],
        "against": content["against"],
        "seed": content["seed"],
        "suites": {name: _suite(entry) for name, entry in content["suites"].items()},
    }


def audit(content: Old) -> New:
    """`audit.json`."""
    kept = ("model", "images", "masks", "automatic", "seed", "verdict", "worst_images")
    return {
        "schema": SCHEMA,
        **{key: content[key] for key in kept},
        "entry": _suite(content["entry"]),
        "classes": [_class_reliance(row) for row in content["classes"]],
    }


def _suite(entry: Old) -> New:
    protocols = entry.get("protocols", {})
    new: New = {
        "kind": entry["kind"],
        "n": entry["n"],
        "protocols": {name: _classification(found) for name, found in protocols.items()},
        "masked": entry.get("masked"),
        "maps": {name: _map_score(score) for name, score in entry.get("maps", {}).items()},
        "shifts": {kind: _shift(shift) for kind, shift in entry.get("shifts", {}).items()},
    }
    if "background" in entry:
        new["background"] = _background(entry["background"])
    if entry["kind"] == "cue conflict":
        new["cues"] = _cues(entry)
    return new


def _classification(old: Old) -> New:
    new: New = {
        "model": _accuracy(old),
        "groups": [
            {"name": row["name"], "top1": _top(row, "top1"), "top5": row["top5"]}
            for row in old.get("groups", ())
        ],
        "unreadable": old["unreadable"],
    }
    if "against" in old:
        new["against"] = _accuracy(old["against"])
        new["change"] = _change(old["difference"])
    for name in ("class", "trained", "group"):
        rows = old.get(f"{name}_differences", ())
        new[f"{name}_changes"] = [_group_change(row) for row in rows]
    return new


def _accuracy(old: Old) -> New:
    return {
        "top1": _top(old, "top1"),
        "top5": _top(old, "top5"),
        "calibration_error": {"value": None, "interval": None, "n": old["n"]},
        "per_class": old["per_class"],
    }


def _top(old: Old, name: str) -> New:
    return {"value": old[name], "interval": old.get(f"{name}_interval"), "n": old["n"]}


def _change(old: Old) -> New:
    return {"top1": _top1_change(old), "top5": _plain_change(old, "top5", "top5_interval")}


def _top1_change(old: Old) -> New:
    counts = {key: old.get(key) for key in ("corrected", "broken")}
    return {**_plain_change(old, "top1", "interval"), "p": old.get("mcnemar"), **counts}


def _plain_change(old: Old, value: str, interval: str) -> New:
    return {"difference": old[value], "interval": old[interval], "n": old["n"]}


def _group_change(row: Old) -> New:
    return {
        "name": row["name"],
        "model": row["top1"],
        "against": row["before"],
        "change": _change(row["difference"]),
    }


def _map_score(old: Old) -> New:
    new: New = {"model": {key: old[key] for key in ("value", "interval", "n")}}
    if "against" in old:
        new["against"] = {"value": old["against"], "interval": None, "n": old["n"]}
        new["change"] = {
            "difference": old["difference"],
            "interval": old["difference_interval"],
            "n": old["n"],
        }
    return new


def _shift(old: Old) -> New:
    new: New = {"about": old["about"], "chance": old["chance"]}
    if "levels" not in old:
        return {**new, "answers": _classification(old)}
    levels = [{"level": line["level"], "top1": _compared_top1(line)} for line in old["levels"]]
    return {**new, "mean": _compared_top1(old), "levels": levels}


def _compared_top1(old: Old) -> New:
    new: New = {"model": _top(old, "top1")}
    if "against" in old:
        new["against"] = _top(old["against"], "top1")
        new["change"] = _top1_change(old["difference"])
    return new


def _background(old: Old) -> New:
    new: New = {which: _reliance(old[which]) for which in ("model", "against") if which in old}
    if "difference" in old:
        new["change"] = {
            key: {"difference": found["value"], "interval": found["interval"], "n": found["n"]}
            for key, found in old["difference"].items()
        }
    return new


def _reliance(old: Old) -> New:
    gap = old["bg_gap"]
    return {
        "bg_gap": {key: gap[key] for key in ("value", "interval", "n")},
        "bg_gap_p": gap["mcnemar"],
        "confidence_change": old["confidence_change"],
        **{key: _top(old[key], "top1") for key in ("plain", "mixed_same", "mixed_rand")},
    }


def _cues(old: Old) -> New:
    new: New = {"model": _shape_bias(old)}
    if "against" in old:
        new["against"] = _shape_bias(old["against"])
        new["change"] = _plain_change(old["difference"], "shape_bias", "interval")
    return new


def _shape_bias(old: Old) -> New:
    counts = ("shape_decisions", "texture_decisions", "other_decisions")
    dropped = ("dropped_same", "dropped_unmapped")
    bias = {"value": old["shape_bias"], "interval": old["interval"], "n": old["n"]}
    return {"shape_bias": bias, **{key: old[key] for key in (*counts, *dropped)}}


def _class_reliance(row: Old) -> New:
    return {
        "name": row["name"],
        "n": row["n"],
        "plain": row["plain"],
        "mixed_same": row["same"],
        "mixed_rand": row["rand"],
        "bg_gap": {"value": row["gap"], "interval": row["interval"], "n": row["n"]},
        "background_share": row["background_share"],
    }
