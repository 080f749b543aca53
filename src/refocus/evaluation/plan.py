"""What to measure, checked before anything is written: test sets, masks, shifts, protocols, and
where records go.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from refocus import outputs
from refocus.data import shifts as shifted
from refocus.data.sampling import usable
from refocus.errors import InputError
from refocus.evaluation import cues, maps
from refocus.evaluation.suites import SUITES, TestSet, open_suite
from refocus.masks.trust import masked
from refocus.records import from_json
from refocus.vit.families import view
from refocus.vit.loading import Models

CUES, SEGMENTS = (
    "cue-conflict",
    "imagenet-segmentation",
)  # names of suites that are not classification


@dataclass(frozen=True)
class Plan:
    """What to measure.

    suites: name -> folder or file. masks, groups: name of a suite -> folder, CSV file.

    protocols: None takes both for the paper's sets and `standard` for the user's folders. mapping:
        for cue conflict. faithful: images for insertion and deletion. mask_score: masks that
        `refocus masks` scored lower are left out. mask_polarity: see `data.polarity`.
        most: at most so many images, spread over the classes, for what needs masks (None: all).
        leave_out: images that are no part of any suite. backgrounds: a folder of images without the
        classes' objects, for the shift `real`.
    """

    suites: dict[str, Path]
    masks: dict[str, Path] = field(default_factory=dict)
    shifts: tuple[str, ...] = ()
    protocols: tuple[str, ...] | None = None
    groups: dict[str, Path] = field(default_factory=dict)
    mapping: Path | None = None
    faithful: int = 0
    mask_score: float = 0.5
    mask_polarity: str = "ask"
    most: int | None = None
    leave_out: frozenset[Path] = frozenset()
    backgrounds: Path | None = None

    def open(self, name: str, model: nn.Module, protocol: str = "standard") -> TestSet:
        tests = open_suite(
            name,
            self.suites[name],
            model,
            protocol=protocol,
            masks=self.masks.get(name),
            mask_polarity=self.mask_polarity,
        )
        return replace(
            tests, samples=[s for s in tests.samples if s.image.resolve() not in self.leave_out]
        )

    def protocols_of(self, name: str) -> tuple[str, ...]:
        return self.protocols or (("standard", "paper") if name in SUITES else ("standard",))


@dataclass(frozen=True)
class How:
    """folder: where records go.

    trained: labels of the classes tuned on. quiet: no progress bars.
    """

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
        return {
            "records": place / f"{stage}.{which}.jsonl",
            "workers": self.workers,
            "label": label,
        }


def settings(model: str, against: str | None, plan: Plan, seed: int) -> dict[str, Any]:
    """What decides every record in a folder, to compare when an evaluation is resumed."""

    def places(given: dict[str, Path]) -> dict[str, str]:
        return {name: str(path.expanduser().resolve()) for name, path in given.items()}

    read = [*plan.suites.values(), *plan.masks.values(), *([plan.mapping] if plan.mapping else [])]
    return {
        "model": outputs.fingerprint(model),
        "against": None if against is None else outputs.fingerprint(against),
        "suites": places(plan.suites),
        "masks": places(plan.masks),
        "shifts": list(plan.shifts),
        "mapping": plan.mapping and str(plan.mapping.expanduser().resolve()),
        "faithful": plan.faithful,
        "mask_score": plan.mask_score,
        "mask_polarity": plan.mask_polarity,
        "most": plan.most,
        "leave_out": sorted(map(str, plan.leave_out)),
        "files": {str(path.expanduser().resolve()): outputs.state(path) for path in read},
        "seed": seed,
        **(places({"backgrounds": plan.backgrounds}) if plan.backgrounds else {}),
    }


@dataclass(frozen=True)
class _Kept:
    """Of settings.json, what opens the images again."""

    suites: dict[str, str]
    masks: dict[str, str]
    mask_score: float
    most: int | None
    leave_out: list[str]
    mask_polarity: str = "ask"


def plan_of(settings: Any, source: str | Path = outputs.SETTINGS) -> Plan:
    """Back from `settings`, as far as it is needed to open the images again.

    Raises:
        InputError: another shape; names `source`.
    """
    kept = from_json(settings, _Kept, source)
    return Plan(
        {name: Path(path) for name, path in kept.suites.items()},
        {name: Path(path) for name, path in kept.masks.items()},
        mask_score=kept.mask_score,
        most=kept.most,
        leave_out=frozenset(map(Path, kept.leave_out)),
        mask_polarity=kept.mask_polarity,
    )


def check(models: Models, plan: Plan) -> None:
    """Open everything once, so that bad input is said before anything is written."""
    for parameter, given in (("masks", plan.masks), ("groups", plan.groups)):
        if unknown := [name for name in given if name not in plan.suites]:
            raise InputError(
                f"‹{parameter}› {unknown[0]}=...: none of ‹suites› has that name; given are "
                f"{', '.join(plan.suites)}"
            )
        if special := [
            name
            for name in given
            if name in (CUES, SEGMENTS) or (parameter == "masks" and name in SUITES)
        ]:
            raise InputError(
                f"‹{parameter}› {special[0]}=...: only for image folders of your own; give the set "
                "under another name"
            )
    if plan.shifts and not plan.masks:
        raise InputError(
            f"‹shifts› {plan.shifts[0]}: needs ‹masks› NAME=PATH; `refocus masks` makes some "
            "without annotation"
        )
    for name, path in plan.suites.items():
        for model in models.values():
            if name == CUES:
                cues.check(path.expanduser(), cues.mapping(model, plan.mapping))
            elif name == SEGMENTS:
                view(model)
                maps.Gtsegs(path.expanduser(), model).samples()
            else:
                for protocol in plan.protocols_of(name):
                    opened = plan.open(name, model, protocol)
        if name in plan.masks:
            for model in models.values():
                view(model)
            samples = masked(opened.samples, plan.masks[name], plan.mask_score)
            if not usable(samples, 1, skip_bad=True):
                raise InputError(
                    f"‹masks› {name}={plan.masks[name]}: none of the masks can be used"
                )
            for kind in plan.shifts:
                shifted.shifts(samples, kind, 0, backgrounds=shifted.grounds(plan.backgrounds))
        if name in plan.groups:
            read_groups(plan.groups[name], opened)
    if plan.mapping and CUES not in plan.suites:
        raise InputError(f"‹mapping› {plan.mapping}: only with ‹suites› {CUES}=PATH")


def read_groups(file: Path, tests: TestSet) -> dict[str, str]:
    """Image (path below the suite's folder) -> group, from a CSV file with the columns
    image,group.
    """
    try:
        with file.expanduser().open(newline="") as lines:
            found = {row["image"]: row["group"] for row in csv.DictReader(lines)}
        if unnamed := [image for image, group in found.items() if not group]:
            raise KeyError(f"no group for {unnamed[0]}")
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"‹groups› {file}: must be CSV with the columns image,group ({error!r})"
        ) from error
    images = {s.image.relative_to(tests.root).as_posix() for s in tests.samples}
    if not images & set(found):
        raise InputError(
            f"‹groups› {file}: names none of the images below {tests.root}; image is CLASS/FILE"
        )
    return found
