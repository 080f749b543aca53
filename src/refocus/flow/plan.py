"""What a run will do, with what data, and how long it takes on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from refocus.data.folders import scan
from refocus.data.shifts import KINDS, unseen
from refocus.errors import InputError
from refocus.evaluation import cues
from refocus.evaluation.plan import CUES, Plan, check
from refocus.evaluation.suites import OTHERS
from refocus.fingerprints import Copies
from refocus.flow import pace
from refocus.flow.pace import Pace
from refocus.flow.results import MASKS
from refocus.flow.settings import RunSettings, audit_settings, tuning_recipe
from refocus.records import Sample
from refocus.reports import audit, before_after
from refocus.tuning.harm import shares_for
from refocus.tuning.recipe import Recipe

_READ = 2  # an image is read and a picture made of it, which takes about as long
_SHOWN = 40  # maps on the pages together


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str  # masks, audit, tune or report
    does: str  # what happens in it
    images: int  # that it works on
    seconds: float  # on this machine, from a few timed images


@dataclass(frozen=True)
class RunPlan:
    """What `refocus run` would do."""

    model: str  # as given
    images: str  # folder
    masks: str | None  # folder; None where they are to be found
    classes: int  # class folders
    count: int  # images in them
    tests: dict[str, int]  # test set -> images
    stages: tuple[Stage, ...]  # in their order

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)


@dataclass(frozen=True)
class Data:
    """The images of a run: those given, and those of each test set."""

    samples: list[Sample]
    tests: Mapping[str, list[Sample]]

    @property
    def classes(self) -> int:
        """Class folders."""
        return len({s.label for s in self.samples})


def look(model: nn.Module, images: Path, masks: Path | None, settings: RunSettings) -> Data:
    """Every folder as the model's classes.

    Raises:
        InputError: one that cannot be used.
    """
    samples = scan(images, model, masks=masks, mask_polarity=settings.mask_polarity)
    if masks is not None:
        audit.check_masks(model, images, masks, audit_settings(settings))
    try:
        tests = _opened(settings.tests, model)
    except cues.NoMappingError as error:
        raise cues.only_evaluated("tests", settings.tests[CUES]) from error
    except InputError as error:
        raise error.renamed("suites", "tests") from error
    own = Copies(s.image for s in samples)
    for name, found in tests.items():
        if found and all(s.image in own for s in found):
            raise InputError(
                f"‹tests› {name}={settings.tests[name]}: all of its images are among ‹images›, "
                "which are trained on or choose the weights; give images that are not"
            )
    return Data(samples, tests)


def _opened(tests: Mapping[str, str | Path], model: nn.Module) -> dict[str, list[Sample]]:
    """Test sets as the report will open them; of those that are no folders of images, none."""
    if not tests:
        return {}
    plan = Plan(tests, quiet=True)
    check({"model": model}, plan)
    return {name: plan.open(name, model).samples for name in tests if name not in OTHERS}


def stages(
    data: Data, settings: RunSettings, speed: Pace, exact: Pace, *, finding: bool
) -> tuple[Stage, ...]:
    """The stages with what each takes.

    exact: in float32, in which the check for harm answers. finding: whether masks are to be found.
    """
    count, recipe = len(data.samples), tuning_recipe(settings, "model", "images", "masks")
    train = min(count, settings.shots * max(1, data.classes // 2))
    tested = sum(map(len, data.tests.values()))
    some, rest = min(settings.most, count), max(0, count - train)
    first = Stage(MASKS, "find a mask for each image, and score it", count, count * speed.mask)
    return (
        *([first] if finding else []),
        Stage(
            "audit",
            "measure how much the model relies on the background",
            count,
            _measured(speed, count, some, audit.SHIFTS, models=1),
        ),
        Stage(
            "tune",
            f"tune on {settings.shots} images of half of the classes, and check that this does no "
            "harm",
            train + min(rest, recipe.val_images + recipe.check_images),
            _tuned(speed, exact, train, rest, recipe),
        ),
        Stage(
            "report",
            "compare original and tuned model on images that were not trained on",
            rest + tested,
            _measured(
                speed, rest, min(some, rest), (*before_after.SHIFTS, *unseen(real=False)), models=2
            )
            + 2 * tested * (speed.read + speed.forward),
        ),
    )


def _measured(speed: Pace, count: int, some: int, kinds: tuple[str, ...], *, models: int) -> float:
    """Seconds to answer `count` images, `some` of them with a map and with every shift.

    For all shifts and models an image is read once, and so is each that lends it a background.
    """
    levels = sum(len(KINDS[kind].levels) for kind in kinds)
    lenders = len({KINDS[kind].donor for kind in kinds} - {"none"})
    plain = count * (speed.read + speed.forward)
    made = (1 + lenders + levels) * speed.read  # a picture of each level is made and prepared
    maps = (some + _SHOWN) * (speed.read + speed.explained)
    return models * (plain + some * levels * speed.forward + maps) + some * made


def _tuned(speed: Pace, exact: Pace, train: int, rest: int, recipe: Recipe) -> float:
    """Seconds to tune, to validate each epoch, and to check for harm."""
    select = min(recipe.val_images, rest // 4)
    check = min(recipe.check_images, rest - select)
    epoch = train * (speed.read + speed.step) + select * (speed.read + speed.forward_of_step)
    answers = len(shares_for(check)) * check * 2 * exact.forward  # as they are and swapped
    elsewhere = len(unseen(real=False)) * check * (_READ * exact.read + 2 * exact.forward)
    return recipe.epochs * epoch + answers + elsewhere + 3 * check * exact.explained


def made(
    model: str,
    network: nn.Module,
    images: Path,
    masks: Path | None,
    settings: RunSettings,
) -> RunPlan:
    """The plan of a run, from folders that were looked at and a few images that were timed.

    Raises:
        InputError: something that the run could not use.
    """
    data = look(network, images, masks, settings)
    backbone = None if masks else settings.backbone
    device = str(next(network.parameters()).device)
    timed = partial(
        pace.measure, network, [s.image for s in data.samples], settings.objective, device=device
    )
    speed = timed(settings.precision, backbone=backbone)
    exact = speed if settings.precision == "fp32" else timed("fp32", backbone=None)
    return RunPlan(
        model=model,
        images=str(images),
        masks=str(masks) if masks else None,
        classes=data.classes,
        count=len(data.samples),
        tests={name: len(samples) for name, samples in data.tests.items()},
        stages=stages(data, settings, speed, exact, finding=masks is None),
    )
