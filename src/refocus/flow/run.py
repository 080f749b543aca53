"""`run`: from a checkpoint and a folder of images to a decision."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from refocus import fingerprints, locks, outputs, references
from refocus.data.folders import class_folders, refuse_shared_stems
from refocus.data.sources.opened import opened, opened_pair, refuse_polarity
from refocus.evaluation.stored import read_audit
from refocus.evaluation.suites import OTHERS, SUITES, refuse_near_miss
from refocus.files import read_json, write_json, write_text
from refocus.flow import page, plan, results
from refocus.flow.answers import answers, ships
from refocus.flow.results import AUDIT, MASKS, PAGE, RESULT, MasksFound, RunResult
from refocus.flow.settings import RunSettings, audit_settings, tuning_recipe
from refocus.masks.folder import MaskFolder, find_masks, read_masks
from refocus.masks.settings import MaskSettings
from refocus.progress import outline, silent
from refocus.records import to_json
from refocus.reports.audit import audit
from refocus.reports.report import Report, report
from refocus.reports.settings import HELD_OUT, ReportSettings
from refocus.results import Audit
from refocus.runs import MODEL, TUNE
from refocus.tuning.results import TuneResults
from refocus.tuning.tracking import check_tracker, say_untracked
from refocus.tuning.tune import tune
from refocus.vit.families import view
from refocus.vit.inputs import check_flag, check_path, check_reference, check_settings
from refocus.vit.loading import identity, load_models, pick_device
from refocus.vit.own_models import code_of
from refocus.vit.precision import check_precision, computing, decisive_precision

log = logging.getLogger("refocus")

_AUDITED = ("audit.json", "audit.html")
# what a run leads to: with one of these gone it is not read but concluded again
_NAMED = (
    RESULT,
    PAGE,
    f"{MASKS}/{outputs.MANIFEST}",
    *(f"{AUDIT}/{name}" for name in _AUDITED),
    f"{TUNE}/{MODEL}",
    f"{TUNE}/report.html",
)


def run(
    model: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    masks: str | Path | None = None,
    settings: RunSettings | None = None,
    progress: bool = True,
    track: str | None = None,
) -> RunResult:
    """Take a checkpoint and a folder of images to a decision, in one call.

    Finds masks where none are given, measures how much the model relies on the background, tunes it
    with a few of the images, checks that this does no harm, and compares before and after. Writes
    `out/index.html`, which says it all on one page, and `out/run.json`; each stage has its folder
    below `out`. The same call again resumes it.

    Args:
        model: timm name, hf:ID, torchvision:NAME, or the folder of a model or of a finished run.
        images: ImageFolder of the model's classes, or what else `refocus` reads (docs/inputs.md);
            best images it was not trained on.
        out: a new folder, or that of a run with the same arguments.
        masks: foreground masks, CLASS/FILE-STEM.png; where there are none they are found, into
            `out/masks`.
        settings: how; without it, as we recommend.
        progress: show the stages and how far they are on stderr.
        track: tensorboard, trackio, wandb or mlflow: log the tuning there, as `tune` does
            (docs/tracking.md).

    Returns:
        What `run.json` holds: three answers, the numbers they rest on, and the model to use.

    Raises:
        InputError: the input cannot be used (nothing is written then), or `out` holds a run with
            other arguments; names the first that differs.

    Examples:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> example = write("example")
        >>> quick = refocus.RunSettings(shots=1, epochs=1, most=10, device="cpu")
        >>> found = refocus.run(
        ...     example.model, example.images, "run", masks=example.masks, settings=quick
        ... )
        >>> [answer.question for answer in found.answers]
        ['Does it rely on the background?', 'Did tuning help?', 'Ship the tuned model?']
        >>> found.page.name
        'index.html'
    """
    progress = check_flag("progress", progress)
    check_tracker(track)
    asked = _asked(model, images, out, masks, settings)
    folder = asked.out
    network = _loaded(asked)
    kept = _kept(asked, network)
    if _done(folder, *_NAMED) and _same(folder, kept):
        say_untracked(track)
        return results.read(folder)
    planned = plan.made(asked.model, network, asked.images, asked.masks, asked.settings)
    folder = outputs.resumable(folder, True, kept, apart=_apart(asked))
    with locks.released(folder), silent(not progress), _stages(planned, folder) as stage:
        return _concluded(asked, _Stages(asked, stage, track))


def plan_run(
    model: str | Path,
    images: str | Path,
    *,
    masks: str | Path | None = None,
    settings: RunSettings | None = None,
) -> plan.RunPlan:
    """What `run` would do, with what data, and for how long; nothing is written.

    Args:
        model: as of `run`.
        images: as of `run`.
        masks: as of `run`.
        settings: as of `run`.

    Returns:
        The data, and the stages with their seconds on this machine, from a few timed images.

    Raises:
        InputError: the input cannot be used.

    Example:
        >>> import refocus
        >>> from refocus.demo.example import write
        >>> example = write("example", per_class=2)
        >>> found = refocus.plan_run(example.model, example.images, masks=example.masks)
        >>> found.count, [stage.name for stage in found.stages]
        (20, ['audit', 'tune', 'report'])
    """
    asked = _asked(model, images, "", masks, settings)
    return plan.made(asked.model, _loaded(asked), asked.images, asked.masks, asked.settings)


# --- what was asked -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """The arguments of a run, checked for their types; folders as full paths."""

    model: str
    images: Path
    out: Path
    masks: Path | None
    settings: RunSettings


def _asked(
    model: str | Path,
    images: str | Path,
    out: str | Path,
    masks: str | Path | None,
    settings: RunSettings | None,
) -> _Asked:
    settings = check_settings(settings, RunSettings)
    model = references.resolved(check_reference(model))
    check_path(images, "images")
    found = opened_pair(images, masks if masks is None else check_path(masks, "masks"))
    if found.masks is None:
        refuse_polarity(settings.mask_polarity)
    tests = {name: _test_set(name, path) for name, path in settings.tests.items()}
    return _Asked(
        model,
        found.images.resolve(),
        check_path(out, "out").absolute() if out else Path(),
        found.masks and found.masks.resolve(),
        replace(settings, tests=tests),
    )


def _test_set(name: str, path: str | Path) -> str | Path:
    """A known test set, which has a layout of its own, as it is; of any other the class folders."""
    refuse_near_miss(name, path, "tests")
    return path if name in (*OTHERS, *SUITES) else opened(path, "tests", part="test").images


def _apart(asked: _Asked) -> dict[str, Path | str | None]:
    tests = {f"‹tests› {name}": path for name, path in asked.settings.tests.items()}
    return {"‹images›": asked.images, "‹masks›": asked.masks, **tests}


def _kept(asked: _Asked, network: nn.Module) -> dict[str, Any]:
    """What decides every number of a run."""
    read = [asked.images, *([asked.masks] if asked.masks else [])]
    tests = {name: Path(path).expanduser().resolve() for name, path in asked.settings.tests.items()}
    settings = to_json(asked.settings)
    for free in ("workers", "device"):  # which decide how fast it goes
        del settings[free]
    precision = decisive_precision(settings.pop("precision"))
    return {
        "model": identity(asked.model, network),
        "images": str(asked.images),
        "masks": asked.masks and str(asked.masks),
        **settings,
        **precision,
        "tests": {name: str(path) for name, path in tests.items()},
        "files": {str(path): fingerprints.of_tree(path) for path in (*read, *tests.values())},
    }


def _same(folder: Path, kept: dict[str, Any]) -> bool:
    """Whether a complete run was started with the same arguments.

    Raises:
        InputError: it was not; names the first that differs.
    """
    file = folder / outputs.SETTINGS
    if not file.exists():  # another command's folder, which `resumable` refuses
        return False
    outputs.refuse_other(folder, read_json(file), kept, file)
    return True


def _loaded(asked: _Asked) -> nn.Module:
    """The model, once what can be wrong with it and with the folders was looked at."""
    device = pick_device(asked.settings.device)
    check_precision(asked.settings.precision, device)
    network = load_models(asked.model, None, device)["model"]
    view(network)
    if asked.masks is None:
        refuse_shared_stems(class_folders(asked.images, "images"))
    return network


# --- the stages ---------------------------------------------------------------------------------

Within = Callable[[str], Any]  # a stage's name -> a `with` in which it is done


@contextmanager
def _stages(planned: plan.RunPlan, folder: Path) -> Iterator[Within]:
    names = [stage.name for stage in planned.stages]
    listed = [(s.name, 0.0 if _done(folder / s.name) else s.seconds) for s in planned.stages]
    with outline(listed) as shown:
        yield lambda name: shown.stage(names.index(name))


@dataclass(frozen=True)
class _Stages:
    """Each stage of a run; what an earlier start completed is read."""

    asked: _Asked
    within: Within
    track: str | None  # where the tuning is logged

    def masks(self) -> MaskFolder | None:
        """Masks, found where none were given."""
        asked, folder = self.asked, self.asked.out / MASKS
        if asked.masks is not None:
            return None
        with self.within(MASKS):
            if _done(folder):
                return read_masks(folder)
            settings = asked.settings
            wanted = MaskSettings(
                settings.backbone, workers=settings.workers, device=settings.device
            )
            return find_masks(asked.images, folder, wanted)

    def audit(self, masks: Path) -> Audit:
        """How much the model as it is relies on the background."""
        asked, settings, folder = self.asked, self.asked.settings, self.asked.out / AUDIT
        with self.within("audit"):
            if _done(folder, *_AUDITED):
                return read_audit(folder / "audit.json")
            wanted = audit_settings(settings)
            return audit(asked.model, asked.images, folder, masks=masks, settings=wanted)

    def tune(self, masks: Path) -> TuneResults:
        """The run, and the do-no-harm rule's choice."""
        asked, settings = self.asked, self.asked.settings
        recipe = tuning_recipe(settings, asked.model, asked.images, masks)
        with self.within("tune"):
            return tune(recipe, asked.out / TUNE, track=self.track)

    def report(self, masks: Path) -> Report:
        """Before and after, on the images that were not trained on and on the test sets."""
        asked, settings = self.asked, self.asked.settings
        with self.within("report"):
            wanted = ReportSettings(
                suites={HELD_OUT: asked.images, **settings.tests},
                masks={HELD_OUT: masks},
                most=settings.most,
                precision=settings.precision,
                workers=settings.workers,
                code=code_of(asked.model),
                seed=settings.seed,
                device=settings.device,
            )
            return report(asked.out / TUNE, wanted)


def _done(folder: Path, *names: str) -> bool:
    """Whether a folder is complete; one whose process was killed at the very end is tidied.

    names: what must be there still, of what it held then.
    """
    if not (folder / outputs.MANIFEST).exists():
        return False
    locks.tidy(folder)
    lost = outputs.gone(folder, *names)
    if lost:
        log.info("%s is gone; what is missing is made again", folder / lost[0])
    return not lost


def _concluded(asked: _Asked, stages: _Stages) -> RunResult:
    """All stages, the result and its page; the manifest comes last."""
    folder = asked.out
    found = stages.masks()
    masks = asked.masks or folder / MASKS
    audited, tuned, report_ = stages.audit(masks), stages.tune(masks), stages.report(masks)
    reported = report_.evaluation
    assert reported is not None  # of a tuning run there is one
    ship = ships(tuned, reported)
    result = RunResult(
        model=str(folder / TUNE / MODEL) if ship else asked.model,
        ship=ship,
        answers=answers(audited, tuned, reported),
        masks=None
        if found is None
        else MasksFound(len(found.scores), found.below, len(found.skipped)),
        audit=audited,
        tuning=tuned,
        report=reported,
        folder=str(folder),
    )
    write_json(folder / RESULT, to_json(result))
    shown = page.Shown(result, asked.model, asked.images, masks, report_.records or folder)
    with computing(asked.settings.precision):
        write_text(folder / PAGE, page.html(shown, asked.settings))
    outputs.finish(folder, "run", seed=asked.settings.seed)
    return result
