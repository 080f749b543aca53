"""What to measure, checked before anything is written: test sets, masks, shifts, protocols, and where records go."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from refocus import cues, localization, runs, shifted
from refocus.errors import InputError
from refocus.families import view
from refocus.images import usable
from refocus.models import class_count, folder_names, load
from refocus.records import Sample
from refocus.selection import trusted
from refocus.suites import SUITES, TestSet, open_suite

CUES, SEGMENTS = "cue-conflict", "imagenet-segmentation"  # names of --on that are not classification
Models = dict[str, nn.Module]  # "model", and "against" where there is one before


@dataclass(frozen=True)
class Plan:
    """What to measure. suites: name -> folder or file. masks, groups: name of a suite -> folder, CSV file.

    protocols: None takes both for the paper's sets and `standard` for the user's folders. mapping: for cue conflict. faithful:
    images for insertion and deletion. mask_score: masks that `refocus masks` scored lower are left out. most: at most so many
    images, spread over the classes, for what needs masks (None: all). leave_out: images that are no part of any suite.
    """

    suites: dict[str, Path]
    masks: dict[str, Path] = field(default_factory=dict)
    shifts: tuple[str, ...] = ()
    protocols: tuple[str, ...] | None = None
    groups: dict[str, Path] = field(default_factory=dict)
    mapping: Path | None = None
    faithful: int = 0
    mask_score: float = 0.5
    most: int | None = None
    leave_out: frozenset[Path] = frozenset()

    def open(self, name: str, model: nn.Module, protocol: str = "standard") -> TestSet:
        tests = open_suite(name, self.suites[name], model, protocol=protocol, masks=self.masks.get(name))
        return replace(tests, samples=[s for s in tests.samples if s.image.resolve() not in self.leave_out])

    def protocols_of(self, name: str) -> tuple[str, ...]:
        return self.protocols or (("standard", "paper") if name in SUITES else ("standard",))


@dataclass(frozen=True)
class How:
    """folder: where records go. trained: labels of the classes tuned on. quiet: no progress bars."""

    folder: Path
    batch_size: int = 64
    workers: int = 0
    seed: int = 0
    trained: frozenset[int] = frozenset()
    quiet: bool = False

    def settings(self, name: str, stage: str, which: str) -> dict[str, Any]:
        """Where one model's records of one stage go, and how its progress bar is called."""
        place = self.folder / "records" / name
        place.mkdir(parents=True, exist_ok=True)
        label = "" if self.quiet else f"{name}: {stage} ({which})"
        return {"records": place / f"{stage}.{which}.jsonl", "workers": self.workers, "label": label}


def load_models(model: str, against: str | None, device: torch.device) -> Models:
    """The model and the one before, which must know the same classes."""
    models = {"model": load(model, device=device)}
    if against is not None:
        models["against"] = load(against, device=device)
        classes = {which: folder_names(network) for which, network in models.items()}
        if classes["model"] and classes["against"] and set(classes["model"]) != set(classes["against"]):
            raise InputError(f"--against {against}: knows other classes than --model {model}")
        if class_count(models["model"]) != class_count(models["against"]):
            raise InputError(
                f"--against {against}: has {class_count(models['against'])} classes, --model {class_count(models['model'])}"
            )
    return models


def trained_classes(model: str) -> frozenset[int]:
    """Labels of the classes that a run of `refocus tune` trained on, for a model that lies in its folder; else none."""
    selection = Path(model).expanduser().resolve().parent / "selection.json"
    return frozenset(row["label"] for row in runs.read_json(selection)["train"]) if selection.exists() else frozenset()


def settings(model: str, against: str | None, plan: Plan, seed: int) -> dict[str, Any]:
    """What decides every record in a folder, to compare when an evaluation is resumed."""

    def places(given: dict[str, Path]) -> dict[str, str]:
        return {name: str(path.expanduser().resolve()) for name, path in given.items()}

    read = [*plan.suites.values(), *plan.masks.values(), *([plan.mapping] if plan.mapping else [])]
    return {
        "model": runs.fingerprint(model),
        "against": None if against is None else runs.fingerprint(against),
        "suites": places(plan.suites),
        "masks": places(plan.masks),
        "shifts": list(plan.shifts),
        "mapping": plan.mapping and str(plan.mapping.expanduser().resolve()),
        "faithful": plan.faithful,
        "mask_score": plan.mask_score,
        "most": plan.most,
        "leave_out": sorted(map(str, plan.leave_out)),
        "files": {str(path.expanduser().resolve()): runs.state(path) for path in read},
        "seed": seed,
    }


def plan_of(settings: dict[str, Any]) -> Plan:
    """Back from `settings`, as far as it is needed to open the images again."""
    suites, masks = ({name: Path(path) for name, path in settings[key].items()} for key in ("suites", "masks"))
    kept = {key: settings[key] for key in ("mask_score", "most")}
    return Plan(suites, masks, leave_out=frozenset(map(Path, settings["leave_out"])), **kept)


def check(models: Models, plan: Plan) -> None:
    """Open everything once, so that bad input is said before anything is written."""
    for option, given in (("--masks", plan.masks), ("--groups", plan.groups)):
        if unknown := [name for name in given if name not in plan.suites]:
            raise InputError(f"{option} {unknown[0]}=...: no --on has that name; given are {', '.join(plan.suites)}")
        if special := [name for name in given if name in (CUES, SEGMENTS) or (option == "--masks" and name in SUITES)]:
            raise InputError(f"{option} {special[0]}=...: only for image folders of your own; give the set under another name")
    if plan.shifts and not plan.masks:
        raise InputError(f"--shift {plan.shifts[0]}: needs --masks NAME=PATH; `refocus masks` makes some without annotation")
    for name, path in plan.suites.items():
        for model in models.values():
            if name == CUES:
                cues.check(path.expanduser(), cues.mapping(model, plan.mapping))
            elif name == SEGMENTS:
                view(model)
                localization.Gtsegs(path.expanduser(), model).samples()
            else:
                for protocol in plan.protocols_of(name):
                    opened = plan.open(name, model, protocol)
        if name in plan.masks:
            for model in models.values():
                view(model)
            samples = masked(opened.samples, plan.masks[name], plan.mask_score)
            if not usable(samples, 1, skip_bad=True):
                raise InputError(f"--masks {name}={plan.masks[name]}: none of the masks can be used")
            for kind in plan.shifts:
                shifted.shifts(samples, kind, 0)
        if name in plan.groups:
            read_groups(plan.groups[name], opened)
    if plan.mapping and CUES not in plan.suites:
        raise InputError(f"--mapping {plan.mapping}: only with --on {CUES}=PATH")


def masked(samples: Sequence[Sample], masks: Path, mask_score: float) -> list[Sample]:
    """The samples whose mask is there and trusted."""
    found = [s for s in trusted(list(samples), masks, mask_score) if s.mask is not None]
    if not found:
        raise InputError(f"--masks {masks}: holds no mask for any of the images")
    return found


def chosen(samples: Sequence[Sample], most: int | None, seed: int) -> frozenset[Path]:
    """At most so many images, spread over the classes: one of each class in random order, then a second of each, ..."""
    if most is None or len(samples) <= most:
        return frozenset(s.image for s in samples)
    of_class: dict[str, list[Path]] = {}  # by folder, so that models with another order of classes get the same images
    for sample in samples:
        of_class.setdefault(sample.image.parent.name, []).append(sample.image)
    rng = np.random.default_rng(seed)
    columns = [[some[i] for i in rng.permutation(len(some))] for some in of_class.values()]
    columns = [columns[i] for i in rng.permutation(len(columns))]
    turns = [image for turn in zip_longest(*columns) for image in turn if image is not None]
    return frozenset(turns[:most])


def read_groups(file: Path, tests: TestSet) -> dict[str, str]:
    """Image (path below the suite's folder) -> group, from a CSV file with the columns image,group."""
    try:
        with file.expanduser().open(newline="") as lines:
            found = {row["image"]: row["group"] for row in csv.DictReader(lines)}
        if unnamed := [image for image, group in found.items() if not group]:
            raise KeyError(f"no group for {unnamed[0]}")
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--groups {file}: must be CSV with the columns image,group ({error!r})") from error
    images = {s.image.relative_to(tests.root).as_posix() for s in tests.samples}
    if not images & set(found):
        raise InputError(f"--groups {file}: names none of the images below {tests.root}; image is CLASS/FILE")
    return found
