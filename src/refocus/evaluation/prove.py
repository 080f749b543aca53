"""Models x test sets -> records and numbers with intervals: accuracy, shifts, cues and maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refocus import locks, outputs, references
from refocus.data import shifts
from refocus.data.sampling import chosen
from refocus.data.trained import trained_classes
from refocus.evaluation import cues, maps
from refocus.evaluation.abreast import Stage, answer_stages
from refocus.evaluation.background import background_reliance
from refocus.evaluation.classify import SuiteResult, answers_on, summary
from refocus.evaluation.intervals import estimate, mean_change
from refocus.evaluation.metrics import DIFFERENCE, PERCENT, paired_difference, top1
from refocus.evaluation.plan import (
    CUES,
    SEGMENTS,
    Plan,
    check,
    decisive,
    folders_read,
    read_groups,
    refuse_unused,
    with_sources,
    without_trained,
)
from refocus.evaluation.stored import RESULTS
from refocus.evaluation.suites import TestSet
from refocus.files import write_json
from refocus.processes import workers_for
from refocus.records import MapRecord, Prediction, Sample, to_json
from refocus.results import (
    Classification,
    Compared,
    CueConflict,
    Evaluation,
    Level,
    ShiftEntry,
    SuiteEntry,
)
from refocus.vit.loading import Models, load_models, pick_device
from refocus.vit.precision import check_precision, computing

Answers = dict[str, SuiteResult]  # "model", and perhaps "against" -> its answers


def evaluate_suites(
    model: str | Path,
    plan: Plan,
    out: str | Path,
    *,
    against: str | Path | None = None,
    resume: bool = True,
) -> Evaluation:
    """Measure a model, or two that are compared, on several test sets.

    Writes results.json and one JSON line per image (`records/SUITE/STAGE.WHICH.jsonl`) into `out`.

    Args:
        model: timm name, hf:ID, torchvision:NAME, or the folder of a model or of a finished run.
        plan: what to measure, and how. The images that a run of `refocus tune` trained one of the
            models on, and copies of them, are left out of its test sets; a notice says how many.
        out: a new folder, or that of the same evaluation: what its records hold is not computed
            again.
        against: the model to compare with, such as the one before tuning.
        resume: False insists on a new folder.

    Returns:
        What results.json holds.

    Raises:
        InputError: the input cannot be used; nothing is written then.
    """
    model, against = str(model), None if against is None else str(against)
    plan = with_sources(plan)
    refuse_unused(plan)
    device = pick_device(plan.device)
    check_precision(plan.precision, device)
    models = load_models(model, against, device)
    plan = without_trained(plan, models["model"], model, against)
    plan = replace(plan, trained=plan.trained or trained_classes(model))
    check(models, plan)
    kept = decisive({"model": model, "against": against}, models, plan)
    folder = outputs.resumable(out, resume, kept, apart=folders_read(plan))
    return measure(models, plan, folder, model=model, against=against)


def measure(
    models: Models, plan: Plan, folder: Path, *, model: str, against: str | None
) -> Evaluation:
    """Measure everything in the plan into a folder that is ready for it.

    `model` and `against` say what the models are.
    """
    with locks.released(folder), computing(plan.precision):
        found = Evaluation(
            model=references.resolved(model),
            against=against and references.resolved(against),
            seed=plan.seed,
            suites=prove(models, plan, folder),
            precision=plan.precision,
        )
        write_json(folder / RESULTS, to_json(found))
        outputs.finish(folder, "evaluate", seed=plan.seed)
    return found


def prove(models: Models, plan: Plan, folder: Path) -> dict[str, SuiteEntry]:
    """Measure everything in the plan; what the records in `folder` hold is not computed again.

    Returns:
        name of the suite -> entry.
    """
    measuring = _Measuring(models, plan, folder)
    return {name: measuring.suite(name) for name in plan.suites}


@dataclass(frozen=True)
class _Measuring:
    """Asks the models and keeps their records; numbers are made by the functions below."""

    models: Models
    plan: Plan
    folder: Path

    def suite(self, name: str) -> SuiteEntry:
        if name == CUES:
            return self.cue_conflict(name)
        if name == SEGMENTS:
            return self.segmentation(name)
        protocols = {}
        for protocol in self.plan.protocols_of(name):
            tests = self.opened(name, protocol)
            csv = self.plan.groups.get(name)
            groups = read_groups(Path(csv), tests["model"]) if csv else None
            protocols[protocol] = self.summary(self.answers(name, protocol, tests), groups)
        first = next(iter(protocols.values()))
        entry = SuiteEntry("classification", first.n, protocols)
        return self.with_masks(name, entry) if name in self.plan.masks else entry

    def opened(self, name: str, protocol: str = "standard") -> dict[str, TestSet]:
        return {which: self.plan.open(name, m, protocol) for which, m in self.models.items()}

    @property
    def workers(self) -> int:
        """Processes that read images ahead."""
        return workers_for(self.plan.workers, next(self.models["model"].parameters()).device.type)

    def records(self, name: str) -> Path:
        """The folder of a suite's records."""
        folder = self.folder / "records" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def kept(self, name: str, stage: str, which: str) -> dict[str, Any]:
        """Where one model's records of one stage go, and what its progress bar is called."""
        return {
            "records": self.records(name) / f"{stage}.{which}.jsonl",
            "workers": self.workers,
            "label": "" if self.plan.quiet else f"{name}: {stage} ({which})",
        }

    def answers(self, name: str, stage: str, tests: dict[str, TestSet]) -> Answers:
        """Every model's answers in one stage."""
        return {
            which: answers_on(
                model,
                tests[which],
                batch_size=self.plan.batch_size,
                **self.kept(name, stage, which),
            )
            for which, model in self.models.items()
        }

    def summary(self, answers: Answers, groups: dict[str, str] | None = None) -> Classification:
        against = None
        if "against" in answers:
            against = (self.models["against"], answers["against"])
        return summary(
            self.models["model"],
            answers["model"],
            against,
            self.plan.seed,
            trained=self.plan.trained,
            groups=groups,
        )

    # --- what masks make possible ---------------------------------------------------------------

    def with_masks(self, name: str, entry: SuiteEntry) -> SuiteEntry:
        opened = self.opened(name)
        samples = {
            which: self.plan.masked_samples(name, tests.samples) for which, tests in opened.items()
        }
        some = chosen(samples["model"], self.plan.most, self.plan.seed)
        mapped = [s for s in samples["model"] if s.image in some]
        loaders = {
            which: maps.MaskedView(model, self.plan.scale) for which, model in self.models.items()
        }
        scores = self.maps(name, self.plan.path(name), mapped, loaders)
        entries, swapped = {}, dict[str, Answers]()
        for kind, levels in self.shifted(name, opened, samples, some).items():
            if kind in ("mixed-same", "mixed-rand"):
                swapped[kind] = levels[""]
            once = {"": swapped[kind]} if kind in swapped else levels  # read once for both
            entries[kind] = self.shift_entry(kind, once)
        background = None
        if len(swapped) == 2:
            background = background_reliance(
                _predictions(self.answers(name, "standard", opened)),
                _predictions(swapped["mixed-same"]),
                _predictions(swapped["mixed-rand"]),
                self.plan.seed,
            )
        return replace(
            entry,
            masked=len(mapped),
            maps=scores,
            shifts=entries,
            background=background,
            scale=self.plan.scale,
        )

    def shifted(
        self,
        name: str,
        opened: dict[str, TestSet],
        samples: dict[str, list[Sample]],
        some: Collection[Path],
    ) -> dict[str, Mapping[str, Answers]]:
        """Kind -> level -> every model's answers; the level of a shift without levels is ""."""
        grounds = shifts.grounds(self.plan.backgrounds)
        stages = []
        for kind in self.plan.shifts:
            of_all = {
                which: shifts.shifts(of_model, kind, self.plan.seed, some, grounds)
                for which, of_model in samples.items()
            }
            for number, (shift, _) in enumerate(of_all["model"]):
                title = f"{kind}-{shift.level}" if shift.level else kind
                shifted = {which: levels[number][1] for which, levels in of_all.items()}
                stages.append(Stage(title, shift, shifted))
        if not stages:
            return {}
        found = answer_stages(
            self.models,
            opened,
            stages,
            self.records(name),
            batch_size=self.plan.batch_size,
            workers=self.workers,
            label="" if self.plan.quiet else f"{name}: shifts",
        )
        names: dict[str, dict[str, str]] = {}
        for stage in stages:
            names.setdefault(stage.shift.kind, {})[stage.shift.level] = stage.name
        return {kind: _Levels(of_kind, found) for kind, of_kind in names.items()}

    def shift_entry(self, kind: str, levels: Mapping[str, Answers]) -> ShiftEntry:
        about = shifts.KINDS[kind].about
        if "" in levels:
            answers = levels[""]
            labels = Counter(p.label for p in answers["model"].predictions)
            return ShiftEntry(about, _chance(labels), self.summary(answers))
        found = curve(levels, self.plan.seed)
        return ShiftEntry(about, found.chance, mean=found.mean, levels=found.levels)

    def maps(
        self, name: str, root: Path, samples: list[Sample], loaders: Mapping[str, Any]
    ) -> dict[str, Compared]:
        records: dict[str, list[MapRecord]] = {
            which: maps.measure(
                model,
                samples,
                root,
                loaders[which],
                faithful=self.plan.faithful,
                **self.kept(name, "maps", which),
            ).rows
            for which, model in self.models.items()
        }
        return maps.scores(records["model"], records.get("against"), self.plan.seed)

    def segmentation(self, name: str) -> SuiteEntry:
        file = self.plan.path(name)
        loaders = {
            which: maps.Gtsegs(file, model, self.plan.scale) for which, model in self.models.items()
        }
        samples = loaders["model"].samples()
        scores = self.maps(name, file.parent, samples, loaders)
        return SuiteEntry("segmentation", len(samples), maps=scores, scale=self.plan.scale)

    # --- cue conflict ---------------------------------------------------------------------------

    def cue_conflict(self, name: str) -> SuiteEntry:
        tables = {which: cues.mapping(m, self.plan.mapping) for which, m in self.models.items()}
        decisions = {
            which: cues.decisions(
                model,
                self.plan.path(name),
                tables[which],
                batch_size=self.plan.batch_size,
                **self.kept(name, "cues", which),
            )
            for which, model in self.models.items()
        }
        bias = {
            which: cues.shape_bias(found.rows, tables[which], self.plan.seed)
            for which, found in decisions.items()
        }
        change = None
        if "against" in decisions:
            change = cues.shape_bias_difference(
                decisions["model"].rows,
                decisions["against"].rows,
                tables["model"],
                self.plan.seed,
            )
        unreadable = decisions["model"].unreadable
        conflict = CueConflict(bias["model"], bias.get("against"), change, unreadable)
        return SuiteEntry("cue conflict", bias["model"].stimuli, cues=conflict)


class _Levels(Mapping[str, Answers]):
    """The levels of a shift, each read from its records when it is asked for."""

    def __init__(self, names: dict[str, str], found: Mapping[str, Answers]) -> None:
        self.names, self.found = names, found

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, level: object) -> bool:
        return level in self.names

    def __getitem__(self, level: str) -> Answers:
        return self.found[self.names[level]]


def _predictions(answers: Answers) -> dict[str, list[Prediction]]:
    """Every model's predictions."""
    return {which: result.predictions for which, result in answers.items()}


def _chance(labels: Counter[int]) -> float:
    """Top-1 in percent of always giving the commonest label: what can be had without looking."""
    return 100 * max(labels.values()) / labels.total()


# --- curves -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """What the levels of a shift say: their mean, each one, and the chance of one answer."""

    mean: Compared
    levels: tuple[Level, ...]
    chance: float  # percent


def curve(levels: Mapping[str, Answers], seed: int) -> Curve:
    """The mean of all levels, and each level's top-1; one level is in memory at a time.

    Intervals of the mean resample images, each with all its levels.
    """
    lines: list[Level] = []
    labels: Counter[int] = Counter()
    of_models: dict[str, _Right] = {}
    for level, answers in levels.items():
        lines.append(Level(level, _compared(answers, seed)))
        labels.update(p.label for p in answers["model"].predictions)
        for which, result in answers.items():
            of_models.setdefault(which, _Right()).add(result)
    right = {which: found.means() for which, found in of_models.items()}
    means = {which: estimate(list(v.values()), PERCENT, seed) for which, v in right.items()}
    if "against" not in right:
        return Curve(Compared(means["model"]), tuple(lines), _chance(labels))
    other = right["against"]
    changes = [value - other[i] for i, value in right["model"].items() if i in other]
    change = mean_change(changes, DIFFERENCE, seed)
    mean = Compared(means["model"], means["against"], change)
    return Curve(mean, tuple(lines), _chance(labels))


class _Right:
    """Of each image at how many levels it was answered, and at how many rightly."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.right: Counter[str] = Counter()

    def add(self, result: SuiteResult) -> None:
        """One more level."""
        for p in result.predictions:
            self.answered[p.image] += 1
            self.right[p.image] += p.right

    def means(self) -> dict[str, float]:
        """Image -> share of the levels in percent at which it is classified right."""
        return {image: 100 * self.right[image] / n for image, n in self.answered.items()}


def _compared(answers: Answers, seed: int) -> Compared:
    """Top-1 of one level."""
    model = answers["model"].predictions
    if "against" not in answers:
        return Compared(top1(model, seed))
    against = answers["against"].predictions
    change = paired_difference(model, against, seed).top1
    return Compared(top1(model, seed), top1(against, seed), change)
