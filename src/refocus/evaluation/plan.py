"""What to measure, checked before anything is written: test sets, masks, shifts, protocols."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from refocus import fingerprints, outputs
from refocus.data import shifts as shifted
from refocus.data.sampling import usable
from refocus.data.sources.opened import opened_pair
from refocus.data.sources.unpack import origin_of
from refocus.data.tables import read_table
from refocus.data.trained import gone_images, say_left_out, trained_images, without
from refocus.errors import InputError
from refocus.evaluation import cues, maps
from refocus.evaluation.settings import EvaluationSettings
from refocus.evaluation.suites import OTHERS, SUITES, TestSet, open_suite, refuse_near_miss
from refocus.masks.joins import Join
from refocus.masks.trust import masked
from refocus.records import Sample, from_json
from refocus.vit.families import view
from refocus.vit.loading import Models, identity
from refocus.vit.precision import decisive_precision

log = logging.getLogger("refocus")

CUES, SEGMENTS = OTHERS


@dataclass(frozen=True)
class Plan(EvaluationSettings):
    """What to measure, and how, with what a caller knows of the images beside the user."""

    # images that are no part of any suite, nor are copies of them
    leave_out: frozenset[Path] = frozenset()
    # images that chose the epoch or the weights: part of the suite `held_out` alone
    chose: frozenset[Path] = frozenset()
    held_out: str = ""
    # path -> content, of those of both that lie elsewhere today
    gone: Mapping[str, str] = field(default_factory=dict)
    trained: frozenset[int] = frozenset()  # labels of the classes tuned on
    quiet: bool = False  # no progress bars

    def __post_init__(self) -> None:
        """Every field holds what is legal; `all` shifts are named one by one."""
        super().__post_init__()
        for name, path in self.suites.items():
            refuse_near_miss(name, path)
        if self.shifts:
            real = self.backgrounds is not None
            object.__setattr__(
                self, "shifts", tuple(shifted.kinds(self.shifts, "shifts", real=real))
            )

    def path(self, name: str) -> Path:
        """The folder or file of a suite."""
        return Path(self.suites[name]).expanduser()

    def masks_of(self, name: str) -> Path | None:
        """The folder of masks of a suite, where one was given."""
        return Path(self.masks[name]).expanduser() if name in self.masks else None

    def open(self, name: str, model: nn.Module, protocol: str = "standard") -> TestSet:
        """A suite as the model is asked about it, without the images that are left out."""
        tests = open_suite(
            name,
            self.path(name),
            model,
            protocol=protocol,
            masks=self.masks_of(name),
            mask_polarity=self.mask_polarity,
        )
        used = self.leave_out if name == self.held_out else self.leave_out | self.chose
        shown = f"‹suites› {name}={self.path(name)}"
        samples = without(tests.samples, used, shown, self.gone)
        kept = {s.image for s in samples}
        left_out = tuple(s.image for s in tests.samples if s.image not in kept)
        return replace(tests, samples=samples, left_out=left_out)

    def protocols_of(self, name: str) -> tuple[str, ...]:
        """The protocols under which a suite is measured."""
        given = self.protocol or ("both" if name in SUITES else "standard")
        return ("standard", "paper") if given == "both" else (given,)

    @property
    def scale(self) -> str:
        """The protocol of map scores and of the segmentation test, which are measured once."""
        return "paper" if self.protocol == "paper" else "standard"

    def masked_samples(self, name: str, samples: list[Sample]) -> list[Sample]:
        """Those of a suite's samples whose masks are trusted; none where it has no masks."""
        folder = self.masks_of(name)
        return [] if folder is None else masked(samples, folder, self.mask_score)


def with_sources(plan: Plan) -> Plan:
    """The plan with class folders in place of tables, archives and data sets of the user's own.

    Masks and groups that come with them are taken where no others were named.
    """
    suites, masks, groups = dict(plan.suites), dict(plan.masks), dict(plan.groups)
    for name, given in plan.suites.items():
        if name in (CUES, SEGMENTS) or name in SUITES:
            continue
        found = opened_pair(given, plan.masks.get(name), "suites", part="test")
        suites[name] = found.images
        if found.masks is not None:
            masks[name] = found.masks
        if found.groups is not None:
            groups.setdefault(name, found.groups)
    return replace(plan, suites=suites, masks=masks, groups=groups)


def without_trained(plan: Plan, network: nn.Module, *refs: str | None) -> Plan:
    """The plan without the images that the models were tuned on; one notice says how many.

    As it is where it measures none of them, so that what decides its records does not change.

    Args:
        plan: with class folders in place of other sources.
        network: a model that opens the test sets.
        refs: the models, as `refocus.load` takes them; None stands for no model.
    """
    trained = trained_images(*refs)
    if not trained:
        return plan
    wider = replace(plan, leave_out=plan.leave_out | trained, gone=gone_images(*refs))
    left_out = _left_out(wider, network)
    say_left_out(left_out, trained, wider.gone)
    return wider if any(n for n, _ in left_out.values()) else plan


def _left_out(plan: Plan, network: nn.Module) -> dict[str, tuple[int, int]]:
    """Test set of images -> how many images are left out, of how many."""

    def count(plan: Plan, name: str) -> int:
        return len(plan.open(name, network).samples)

    names = [name for name in plan.suites if name not in (CUES, SEGMENTS)]
    every = {name: count(replace(plan, leave_out=frozenset()), name) for name in names}
    return {name: (of - count(plan, name), of) for name, of in every.items()}


def folders_read(plan: Plan) -> dict[str, Path | str | None]:
    """What is read, by what a user calls it: no results may lie in it."""
    return {
        **{f"‹suites› {name}": path for name, path in plan.suites.items()},
        **{f"‹masks› {name}": path for name, path in plan.masks.items()},
        "‹backgrounds›": plan.backgrounds,
    }


def decisive(refs: Mapping[str, str | None], models: Models, plan: Plan) -> dict[str, Any]:
    """What decides every record in a folder, to compare when an evaluation is resumed.

    refs: "model" and "against" -> what `models` were loaded from, None where there is none.
    """

    def full(given: Mapping[str, str | Path]) -> dict[str, str]:
        return {name: str(Path(path).expanduser().resolve()) for name, path in given.items()}

    mapping = Path(plan.mapping).expanduser().resolve() if plan.mapping else None
    read = [Path(path).expanduser() for path in (*plan.suites.values(), *plan.masks.values())]
    read += [mapping] if mapping else []
    read += [Path(plan.backgrounds).expanduser()] if plan.backgrounds else []
    return {
        **{which: ref and identity(ref, models[which]) for which, ref in refs.items()},
        "suites": full(plan.suites),
        "masks": full(plan.masks),
        "shifts": list(plan.shifts),
        "mapping": mapping and str(mapping),
        "faithful": plan.faithful,
        "mask_score": plan.mask_score,
        "mask_polarity": plan.mask_polarity,
        "most": plan.most,
        "leave_out": sorted(map(str, plan.leave_out)),
        **({"chose": sorted(map(str, plan.chose))} if plan.chose else {}),
        **({"held_out": plan.held_out} if plan.held_out else {}),
        **({"gone": dict(plan.gone)} if plan.gone else {}),
        "files": {str(path.resolve()): fingerprints.of_tree(path) for path in read},
        "seed": plan.seed,
        **(full({"backgrounds": plan.backgrounds}) if plan.backgrounds else {}),
        **({"scale": plan.scale} if plan.scale == "paper" else {}),
        **decisive_precision(plan.precision),
    }


@dataclass(frozen=True)
class _Kept:
    """Of settings.json, what opens the images again."""

    suites: dict[str, str]
    masks: dict[str, str]
    mask_score: float
    most: int | None
    leave_out: list[str]
    seed: int
    mask_polarity: Literal["ask", "keep", "invert"] = "ask"
    backgrounds: str | None = None
    chose: list[str] = field(default_factory=list)
    held_out: str = ""
    gone: dict[str, str] = field(default_factory=dict)


def plan_of(settings: Any, source: str | Path = outputs.SETTINGS) -> Plan:
    """Back from `settings`, as far as it is needed to open the images again.

    Raises:
        InputError: another shape; names `source`.
    """
    kept = from_json(settings, _Kept, source)
    return Plan(
        kept.suites,
        kept.masks,
        mask_score=kept.mask_score,
        mask_polarity=kept.mask_polarity,
        most=kept.most,
        leave_out=frozenset(map(Path, kept.leave_out)),
        chose=frozenset(map(Path, kept.chose)),
        held_out=kept.held_out,
        gone=kept.gone,
        backgrounds=kept.backgrounds,
        seed=kept.seed,
    )


def check(models: Models, plan: Plan) -> None:
    """Open everything once, so that bad input is reported before anything is written."""
    _check_names(plan)
    for name in plan.suites:
        if name == CUES:
            for model in models.values():
                cues.check(plan.path(name), cues.mapping(model, plan.mapping))
        elif name == SEGMENTS:
            for model in models.values():
                view(model)
                maps.Gtsegs(plan.path(name), model).samples()
        else:
            _check_images(name, models, plan)
    if plan.mapping and CUES not in plan.suites:
        raise InputError(f"‹mapping› {plan.mapping}: only with ‹suites› {CUES}=PATH")


def refuse_unused(plan: Plan) -> None:
    """Stop at options that decide nothing, so that nobody takes numbers for what they are not.

    Call it with what a user gave, and after `with_sources`, as masks may come with images.

    Raises:
        InputError: an option for masks without masks, or backgrounds without the shift that takes
            them.
    """
    legal = {row.name: row.default for row in fields(plan)}
    if not plan.masks:
        for name in ("most", "faithful", "mask_score", "mask_polarity"):
            value, segments = getattr(plan, name), name == "faithful"
            if value != legal[name] and not (segments and SEGMENTS in plan.suites):
                other = f", or with ‹suites› {SEGMENTS}=PATH" if segments else ""
                raise InputError(f"‹{name}› {value}: only with ‹masks› NAME=PATH{other}")
    if plan.backgrounds and shifted.REAL not in plan.shifts:
        raise InputError(f"‹backgrounds› {plan.backgrounds}: only with ‹shifts› {shifted.REAL}")


def _check_names(plan: Plan) -> None:
    """Masks and groups are of suites that are measured, and of the user's own."""
    for parameter, given in (("masks", plan.masks), ("groups", plan.groups)):
        for name in given:
            if name not in plan.suites:
                raise InputError(
                    f"‹{parameter}› {name}=...: no test set in ‹suites› has that name; given: "
                    f"{', '.join(plan.suites)}"
                )
            if name in (CUES, SEGMENTS) or (parameter == "masks" and name in SUITES):
                raise InputError(
                    f"‹{parameter}› {name}=...: only for image folders of your own; give the set "
                    "under another name"
                )
    if plan.shifts and not plan.masks:
        raise InputError(
            f"‹shifts› {plan.shifts[0]}: needs ‹masks› NAME=PATH; `refocus masks` makes some "
            "without annotation"
        )


def _check_images(name: str, models: Models, plan: Plan) -> None:
    for model in models.values():
        for protocol in plan.protocols_of(name):
            opened = plan.open(name, model, protocol)
    if name in plan.masks:
        for model in models.values():
            view(model)
        samples = plan.masked_samples(name, opened.samples)
        if not usable(samples, 1, skip_bad=True, shown=not plan.quiet):
            raise InputError(f"‹masks› {name}={plan.masks[name]}: none of the masks can be used")
        for kind in plan.shifts:
            shifted.shifts(samples, kind, 0, backgrounds=shifted.grounds(plan.backgrounds))
    if name in plan.groups:
        read_groups(Path(plan.groups[name]), opened)


def read_groups(file: Path, tests: TestSet) -> dict[str, str]:
    """Image (path below the suite's folder) -> group.

    From a CSV file with the columns image,group.
    """
    shown, rows = f"‹groups› {file}", dict[str, str]()
    for row in read_table(file, ("image", "group"), shown):
        image, group = row["image"], row["group"]
        if rows.setdefault(image, group) != group:
            raise InputError(
                f"{shown}: {image} is in {rows[image]} and {group}; must be in one group each"
            )
    own = {s.image: s.image.relative_to(tests.root).as_posix() for s in tests.samples}
    if _came_with(file, tests):
        named = {name: name if name in rows else None for name in own.values()}
    else:
        join = Join(rows, [*own, *tests.left_out])
        named = {name: join(image) for image, name in own.items()}
    found = {image: rows[name] for image, name in named.items() if name is not None}
    if not found:
        raise InputError(
            f"{shown}: lists none of the images below {tests.root}; the column image must hold "
            "CLASS/FILE"
        )
    if lacking := len(named) - len(found):
        log.info("%s: %d of %d images have no group in it", file, lacking, len(named))
    return found


def _came_with(file: Path, tests: TestSet) -> bool:
    """Whether groups were unpacked with the images, and call them as they are called there."""
    beside = file.expanduser().resolve().parent == tests.root.resolve().parent
    return beside and any(origin_of(s.image) is not None for s in tests.samples)
