"""Models x test sets -> records and numbers: accuracy, shifts, cues and maps, with intervals,
before and after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refocus.data import shifts
from refocus.data.sampling import chosen
from refocus.evaluation import cues
from refocus.evaluation.classify import SuiteResult, evaluate, summary
from refocus.evaluation.intervals import estimate
from refocus.evaluation.maps import Gtsegs, MaskedView, measure, scores
from refocus.evaluation.metrics import DIFFERENCE, PERCENT, paired_difference
from refocus.evaluation.plan import CUES, SEGMENTS, How, Plan, read_groups
from refocus.evaluation.suites import TestSet
from refocus.intervals import mean_interval
from refocus.masks.trust import masked
from refocus.records import Prediction, Sample
from refocus.vit.loading import Models


def prove(models: Models, plan: Plan, how: How) -> dict[str, Any]:
    """Measure everything in the plan; what records hold already is not computed again.

    Returns suite name -> entry.
    """
    return {name: _suite(name, path, models, plan, how) for name, path in plan.suites.items()}


def _suite(name: str, path: Path, models: Models, plan: Plan, how: How) -> dict[str, Any]:
    if name == CUES:
        return _cue_conflict(name, path.expanduser(), models, plan, how)
    if name == SEGMENTS:
        loaders = {which: Gtsegs(path.expanduser(), model) for which, model in models.items()}
        samples = loaders["model"].samples()
        return {
            "kind": "segmentation",
            "n": len(samples),
            "maps": _maps(name, path.parent, samples, loaders, models, plan, how),
        }
    entries = {}
    for protocol in plan.protocols_of(name):
        tests = {which: plan.open(name, model, protocol) for which, model in models.items()}
        groups = read_groups(plan.groups[name], tests["model"]) if name in plan.groups else None
        found = _answers(name, protocol, tests, models, how)
        entries[protocol] = {"protocol": protocol, **_summary(found, models, how, groups)}
    first = next(iter(entries.values()))
    entry = {"kind": "classification", **first, "protocols": entries}
    if name in plan.masks:
        entry |= _with_masks(name, path.expanduser(), models, plan, how)
    return entry


def _answers(
    name: str, stage: str, tests: dict[str, TestSet], models: Models, how: How
) -> dict[str, SuiteResult]:
    """Every model's answers in one stage."""
    return {
        which: evaluate(
            model, tests[which], batch_size=how.batch_size, **how.settings(name, stage, which)
        )
        for which, model in models.items()
    }


def _summary(
    found: dict[str, SuiteResult], models: Models, how: How, groups: dict[str, str] | None = None
) -> dict[str, Any]:
    against = (models["against"], found["against"]) if "against" in models else None
    return summary(
        models["model"], found["model"], against, how.seed, trained=how.trained, groups=groups
    )


# --- what masks make possible -------------------------------------------------------------------


def _with_masks(name: str, root: Path, models: Models, plan: Plan, how: How) -> dict[str, Any]:
    opened = {which: plan.open(name, model) for which, model in models.items()}
    samples = {
        which: masked(tests.samples, plan.masks[name], plan.mask_score)
        for which, tests in opened.items()
    }
    kept = chosen(samples["model"], plan.most, how.seed)
    mapped = [s for s in samples["model"] if s.image in kept]
    loaders = {which: MaskedView(model) for which, model in models.items()}
    maps = _maps(name, root, mapped, loaders, models, plan, how)
    entry: dict[str, Any] = {"masked": len(mapped), "maps": maps, "shifts": {}}
    answers: dict[str, dict[str, list[Prediction]]] = {}
    for kind in plan.shifts:
        made = {
            which: shifts.shifts(some, kind, how.seed, kept, shifts.grounds(plan.backgrounds))
            for which, some in samples.items()
        }
        levels: dict[str, dict[str, SuiteResult]] = {}
        for number, (shift, _) in enumerate(made["model"]):
            tests = {
                w: replace(opened[w], samples=made[w][number][1], read=made[w][number][0])
                for w in models
            }
            levels[shift.level] = _answers(
                name, f"{kind}-{shift.level}" if shift.level else kind, tests, models, how
            )
        answers[kind] = {
            w: [p for found in levels.values() for p in found[w].predictions] for w in models
        }
        found = _summary(levels[""], models, how) if "" in levels else curve(levels, how.seed)
        chance = _chance(answers[kind]["model"])
        entry["shifts"][kind] = {**found, "about": shifts.KINDS[kind].about, "chance": chance}
    if {"mixed-same", "mixed-rand"} <= set(plan.shifts):
        plain = {
            which: result.predictions
            for which, result in _answers(name, "standard", opened, models, how).items()
        }
        entry["background"] = background_reliance(
            plain, answers["mixed-same"], answers["mixed-rand"], how.seed
        )
    return entry


def _chance(predictions: Sequence[Prediction]) -> float:
    """Top-1 in percent of always giving the commonest label: what can be had without looking."""
    return 100 * max(Counter(p.label for p in predictions).values()) / len(predictions)


def curve(levels: dict[str, dict[str, SuiteResult]], seed: int) -> dict[str, Any]:
    """A curve's entry: each level's accuracy, and their mean.

    Intervals of the mean resample images, each with all its levels.
    """
    entry: dict[str, Any] = {"levels": []}
    for level, found in levels.items():
        rows = {which: _top1(result.predictions, seed) for which, result in found.items()}
        line = {"level": level, **rows["model"]}
        if "against" in found:
            difference = paired_difference(
                found["model"].predictions, found["against"].predictions, seed
            )
            line |= {"against": rows["against"], "difference": difference}
        entry["levels"].append(line)
    right = {
        which: _mean_right([found[which] for found in levels.values()])
        for which in next(iter(levels.values()))
    }
    for which, values in right.items():
        mean = estimate(list(values.values()), PERCENT, seed)
        row = {"top1": mean["value"], "top1_interval": mean["interval"], "n": mean["n"]}
        entry |= row if which == "model" else {"against": row}
    if "against" in right:
        change = [
            value - right["against"][image]
            for image, value in right["model"].items()
            if image in right["against"]
        ]
        mean = estimate(change, DIFFERENCE, seed)
        entry["difference"] = {"top1": mean["value"], "interval": mean["interval"], "n": mean["n"]}
    return entry


def _mean_right(results: list[SuiteResult]) -> dict[str, float]:
    """Image -> share of the levels in percent at which it is classified right."""
    sums: dict[str, list[float]] = {}
    for result in results:
        for p in result.predictions:
            sums.setdefault(p.image, []).append(100.0 * p.right)
    return {image: float(np.mean(values)) for image, values in sums.items()}


def background_reliance(
    plain: dict[str, list[Prediction]],
    same: dict[str, list[Prediction]],
    rand: dict[str, list[Prediction]],
    seed: int,
) -> dict[str, Any]:
    """How much the decision rests on the background, for each model and as the difference of the
    two, all over the same images.

    bg_gap: top-1 on mixed-same minus mixed-rand, percentage points (Xiao et al., ICLR 2021).
        confidence_change: the softmax share of the true class on mixed-rand minus that on
        mixed-same, so that what pasting does by itself cancels. plain, mixed_same, mixed_rand:
        top-1.
    """
    found: dict[str, Any] = {}
    per_image: dict[str, dict[str, tuple[float, float]]] = {}
    for which in plain:
        by_image = [{p.image: p for p in some[which]} for some in (plain, same, rand)]
        shared = [image for image in by_image[0] if image in by_image[1] and image in by_image[2]]
        p, s, r = ([group[image] for image in shared] for group in by_image)
        gap = paired_difference(s, r, seed)
        change = [_true(b) - _true(a) for a, b in zip(s, r, strict=True)]
        per_image[which] = {
            image: (100.0 * a.right - 100.0 * b.right, c)
            for image, a, b, c in zip(shared, s, r, change, strict=True)
        }
        found[which] = {
            "bg_gap": {
                "value": gap["top1"],
                "interval": gap["interval"],
                "n": gap["n"],
                "mcnemar": gap["mcnemar"],
            },
            "confidence_change": estimate(change, (-1.0, 1.0), seed),
            **{
                key: _top1(some, seed)
                for key, some in (("plain", p), ("mixed_same", s), ("mixed_rand", r))
            },
        }
    if "against" in found:
        shared = [image for image in per_image["model"] if image in per_image["against"]]
        for number, (key, bounds) in enumerate(
            (("bg_gap", (-200.0, 200.0)), ("confidence_change", (-2.0, 2.0)))
        ):
            change = [
                per_image["model"][image][number] - per_image["against"][image][number]
                for image in shared
            ]
            found.setdefault("difference", {})[key] = estimate(change, bounds, seed)
    return found


def _true(prediction: Prediction) -> float:
    assert prediction.true_confidence is not None  # `evaluate` writes it
    return prediction.true_confidence


def _top1(predictions: list[Prediction], seed: int) -> dict[str, Any]:
    right = [100.0 * p.right for p in predictions]
    mean = float(np.mean(right)) if right else None
    return {"top1": mean, "top1_interval": mean_interval(right, PERCENT, seed), "n": len(right)}


def _maps(
    name: str,
    root: Path,
    samples: list[Sample],
    loaders: dict[str, Any],
    models: Models,
    plan: Plan,
    how: How,
) -> dict[str, Any]:
    found = {
        which: measure(
            model,
            samples,
            root,
            loaders[which],
            faithful=plan.faithful,
            **how.settings(name, "maps", which),
        )
        for which, model in models.items()
    }
    return scores(found["model"], found.get("against"), how.seed)


# --- cue conflict -------------------------------------------------------------------------------


def _cue_conflict(name: str, root: Path, models: Models, plan: Plan, how: How) -> dict[str, Any]:
    tables = {which: cues.mapping(model, plan.mapping) for which, model in models.items()}
    found = {
        which: cues.decisions(
            model,
            root,
            tables[which],
            batch_size=how.batch_size,
            **how.settings(name, "cues", which),
        )
        for which, model in models.items()
    }
    entry = {"kind": "cue conflict", **cues.shape_bias(found["model"], tables["model"], how.seed)}
    if "against" in found:
        entry["against"] = cues.shape_bias(found["against"], tables["against"], how.seed)
        entry["difference"] = cues.shape_bias_difference(
            found["model"], found["against"], tables["model"], how.seed
        )
    return entry
