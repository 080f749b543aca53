"""Effective robustness: shifted against clean accuracy of many models, and the line through them.

Taori et al., NeurIPS 2020: on logit axes the models lie near a line, and what counts is how far
above it a model is. Nothing is measured here; the accuracies are those of `refocus evaluate`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from scipy.special import expit, logit

from refocus import fingerprints, references, runs
from refocus.data.shifts import KINDS
from refocus.errors import InputError, Message
from refocus.evaluation.stored import RESULTS, read_evaluation
from refocus.figures.charts import AFTER, BEFORE, GRID, MUTED
from refocus.files import read_json, write_bytes
from refocus.outputs import MANIFEST, SETTINGS, manifest_of
from refocus.probes.batch import Options
from refocus.probes.curves import png
from refocus.probes.results import AGAINST, MODEL, Level
from refocus.records import ProbeRecord
from refocus.results import Compared, Estimate, Evaluation

log = logging.getLogger("refocus")

ORIGINAL, TUNED = "original models", "tuned models"
_CLEAN, _SHIFTED, _TUNED = "clean", "shifted", "tuned"  # columns of a record
_LEAST = 3  # models: two are always on their line
_TICKS = (1, 5, 10, 25, 50, 75, 90, 95, 99)  # percent
_STANDARD = "standard"  # the protocol of all shifts
Top1 = dict[str, Compared]  # name of a test set -> both models' accuracy, percent
Told = tuple[str, str]  # what a folder says of a setting, and a fingerprint of what lay there


@dataclass(frozen=True)
class Line:
    """logit(shifted) = slope logit(clean) + intercept, through `n` models."""

    slope: float
    intercept: float
    n: int
    originals: bool  # through the original models alone

    def at(self, clean: np.ndarray) -> np.ndarray:
        """Shifted accuracies that the line expects, shares like `clean`."""
        expected: np.ndarray = expit(self.slope * logit(clean) + self.intercept)
        return expected


@dataclass(frozen=True)
class _Measured:
    """One model of an evaluation.

    key: what the model is, by its content; None where the folder does not say it. after: whether
    another one before it was measured beside it.
    """

    folder: str
    key: tuple[str, ...] | None
    after: bool
    of_run: bool  # its folder is that of a tuning run
    top1: dict[str, Top1]  # by protocol
    beside: bool  # it is the one before
    decided: dict[str, dict[str, Told]]  # what decided the numbers: images and masks by test set

    def columns(
        self, protocol: str, clean: str, shifted: Sequence[str], *, tuned: bool
    ) -> dict[str, tuple[float | None, ...]] | None:
        """The columns of its record; None where a number is missing."""
        both = (self.top1[protocol][name] for name in (clean, *shifted))
        shares = [_share(found.against if self.beside else found.model) for found in both]
        known = [share for share in shares if share is not None]
        if len(known) < len(shares):
            return None
        return {
            _CLEAN: (known[0],) * len(shifted),
            _SHIFTED: tuple(known[1:]),
            _TUNED: (float(tuned),) * len(shifted),
        }


def gathered(options: Options) -> list[ProbeRecord]:
    """A record for each model: its clean accuracy, and a shifted one for each test set in common.

    Shares, half a right answer added on either side, so that a logit is always finite. A model of
    several results counts once, with the numbers of the first, also where it is compared with in
    one and measured alone in another. A model is tuned where one before it was measured beside it,
    or where its folder is that of a run. All numbers are of one protocol, `standard` where all
    results have it; what else differs between results is said.

    Raises:
        InputError: results of too few models, or without two test sets in common.
    """
    assert options.results is not None
    found = list(_evaluations(options.results))
    if not found:
        raise InputError(
            f"‹results› {options.results}: holds no results of `refocus evaluate` ({RESULTS})"
        )
    protocol, clean, shifted = _sets([one.top1 for one in found], options.results)
    _warn_of_differences(found, (clean, *shifted))
    later = {one.key for one in found if one.key and (one.after or one.of_run)}
    rows: dict[tuple[object, ...], ProbeRecord] = {}
    for one in found:
        tuned = one.after or one.of_run or one.key in later
        values = one.columns(protocol, clean, shifted, tuned=tuned)
        if values is None:
            continue
        name = f"{one.folder} ({'tuned' if tuned else 'original'})"
        kept = rows.setdefault(one.key or tuple(values.values()), ProbeRecord(name, values))
        if kept.values != values:
            log.warning("%s is the model of %s with other numbers: left out", name, kept.image)
    if len(rows) < _LEAST:
        raise InputError(
            f"‹results› {options.results}: results of {len(rows)} different models; a line needs "
            f"at least {_LEAST}"
        )
    return list(rows.values())


def _evaluations(root: Path) -> Iterator[_Measured]:
    """The models of each folder of `refocus evaluate`, the one before first."""
    for file in sorted(root.rglob(RESULTS)):
        folder = file.parent
        if not (folder / MANIFEST).exists() or manifest_of(folder).command != "evaluate":
            continue
        found, settings = read_evaluation(file), folder / SETTINGS
        kept = read_json(settings) if settings.exists() else {}
        keys, decided = _keys(kept), _decided(kept, found)
        name, top1 = folder.relative_to(root).as_posix(), _top1(found)
        if found.against is not None:
            of_run = _of_run(found.against)
            yield _Measured(name, keys.get(AGAINST), False, of_run, top1, True, decided)
        of_run, after = _of_run(found.model), found.against is not None
        yield _Measured(name, keys.get(MODEL), after, of_run, top1, False, decided)


def _keys(kept: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Which models were measured, by content, and by name where that is all that is known."""
    known = {which: kept.get(which) for which in (MODEL, AGAINST)}
    return {
        which: tuple(map(str, said[1:] or said))  # the first is where it lies
        for which, said in known.items()
        if isinstance(said, list) and said
    }


def _decided(kept: dict[str, Any], found: Evaluation) -> dict[str, dict[str, Told]]:
    """What decided the numbers of a folder; what it does not say is missing."""
    files = kept.get("files") or {}

    def places(name: str) -> dict[str, Told]:
        return {of: (path, files.get(path, "")) for of, path in (kept.get(name) or {}).items()}

    everywhere: dict[str, Told] = {"‹precision›": (found.precision, "")}
    of_shifts: dict[str, Told] = {"‹seed›": (str(found.seed), "")}
    if "leave_out" in kept:
        left_out = kept["leave_out"]
        many = str(len(left_out)), fingerprints.of_text(*left_out)
        everywhere["the number of training images that were left out"] = many
    for name in ("most", "mask_score"):
        if name in kept:
            of_shifts[f"‹{name}›"] = (str(kept[name]), "")
    if path := kept.get("backgrounds"):
        of_shifts["‹backgrounds›"] = (path, files.get(path, ""))
    return {
        "images": places("suites"),
        "masks": places("masks"),
        "setting": everywhere,
        "setting of shifts": of_shifts,
    }


def _warn_of_differences(found: Sequence[_Measured], names: Sequence[str]) -> None:
    """Say where two results measured something else under one name, or measured it otherwise."""
    shifted = [name.rpartition(", ") for name in names]
    sets = {"images": names, "masks": [name for name, _, kind in shifted if kind in KINDS]}
    for kind, called in sets.items():
        for name in dict.fromkeys(called):
            _warn_of_others(kind, name, found, "the masks of " if kind == "masks" else "")
    of_settings = ["setting", *(["setting of shifts"] if sets["masks"] else [])]
    for kind in of_settings:
        for name in dict.fromkeys(name for one in found for name in one.decided[kind]):
            _warn_of_others(kind, name, found)


def _warn_of_others(kind: str, name: str, found: Sequence[_Measured], what: str = "") -> None:
    """One warning, of the first result that says something else than the first of all."""
    said = [(one.folder, one.decided[kind][name]) for one in found if name in one.decided[kind]]
    for folder, told in said[1:]:
        first, before = said[0]
        if not _alike(told, before):
            other = told[0] + (" with other files" if told[0] == before[0] else "")
            verb = "are" if what else "is"
            log.warning(
                Message(
                    f"{what}{name} {verb} {before[0]} in {first} and {other} in {folder}: a line "
                    f"needs the same {kind} in all results"
                )
            )
            return


def _alike(one: Told, other: Told) -> bool:
    """By what lay there, where both say it: a folder may be moved, or change where it lies."""
    return one[1] == other[1] if one[1] and other[1] else one[0] == other[0]


def _of_run(ref: str) -> bool:
    """Whether a model is the one that a tuning run left."""
    place = references.folder_of(ref)
    return place.name == runs.MODEL and runs.tuned(place.parent) is not None


def _top1(found: Evaluation) -> dict[str, Top1]:
    """By protocol, accuracies of all test sets, and of the shifts of each."""
    sets: dict[str, Top1] = {}
    for name, entry in found.suites.items():
        if entry.kind == "classification":
            for protocol, answers in entry.protocols.items():
                sets.setdefault(protocol, {})[name] = answers.top1
            if _STANDARD in entry.protocols:
                shifts = {f"{name}, {kind}": shift.top1 for kind, shift in entry.shifts.items()}
                sets[_STANDARD].update(shifts)
    return sets


def _sets(found: Sequence[dict[str, Top1]], root: Path) -> tuple[str, str, list[str]]:
    """The protocol, the first test set that all results have under it, and the others.

    That first one is the clean one.
    """
    said = []
    for protocol in dict.fromkeys((_STANDARD, *(name for one in found for name in one))):
        first, *others = (one.get(protocol, {}) for one in found)
        common = [name for name in first if all(name in top1 for top1 in others)]
        if len(common) >= 2:
            return protocol, common[0], common[1:]
        said.append(f"{', '.join(common) or 'none'} ({protocol})")
    raise InputError(
        f"‹results› {root}: a line needs two test sets or shifts that all {len(found)} results "
        f"have under one protocol (that of shifts is {_STANDARD}); in common: {'; '.join(said)}"
    )


def _share(found: Estimate | None) -> float | None:
    if found is None or found.value is None:
        return None
    return (found.value / 100 * found.n + 0.5) / (found.n + 1)


def levels(options: Options) -> list[Level]:
    """The shifted test sets."""
    assert options.results is not None
    found = [one.top1 for one in _evaluations(options.results)]
    return list(_sets(found, options.results)[2])


def above_the_line(records: list[ProbeRecord], _seed: int = 0) -> list[ProbeRecord]:
    """Points that each model's shifted accuracy is above the line of its clean one."""
    clean, shifted, tuned = _columns(records)
    excess = np.full(clean.shape, np.nan)
    for at in range(clean.shape[1]):
        line = fitted(clean[:, at], shifted[:, at], tuned)
        excess[:, at] = 100 * (shifted[:, at] - line.at(clean[:, at]))
    return [
        ProbeRecord(
            row.image,
            {
                series: tuple(float(v) if mine == after else None for v in values)
                for series, mine in ((ORIGINAL, False), (TUNED, True))
            },
        )
        for row, values, after in zip(records, excess, tuned, strict=True)
    ]


def fitted(clean: np.ndarray, shifted: np.ndarray, tuned: np.ndarray) -> Line:
    """The least-squares line on logit axes, through the original models where they are three.

    Axes: a share for each model `[n]`; with fewer originals it goes through all models.
    """
    originals = int((~tuned).sum()) >= _LEAST
    used = ~tuned if originals else np.full(len(tuned), True)
    x, y = logit(clean[used]), logit(shifted[used])
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * y).sum()) / spread if spread > 0 else 0.0
    return Line(slope, float(y.mean() - slope * x.mean()), int(used.sum()), originals)


def _columns(records: Sequence[ProbeRecord]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clean and shifted shares `[n, sets]`, and which models were tuned `[n]`."""
    clean, shifted, tuned = (
        np.array([row.values[name] for row in records], dtype=float)
        for name in (_CLEAN, _SHIFTED, _TUNED)
    )
    return clean, shifted, tuned[:, 0] > 0.5


def scatter(records: Sequence[ProbeRecord], _root: Path, path: Path, _seed: int = 0) -> None:
    """Models on logit axes, a panel for each shifted test set, with the line."""
    clean, shifted, tuned = _columns(records)
    sets = clean.shape[1]
    columns = min(3, sets)
    rows = -(-sets // columns)
    page = Figure(figsize=(3.2 * columns, 3.2 * rows), layout="constrained")
    panels = page.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[sets:]:
        axes.set_visible(False)
    for at in range(sets):
        _panel(panels[at], clean[:, at], shifted[:, at], tuned)
    page.supxlabel("clean accuracy, % (logit axis)", fontsize=9)
    page.supylabel("shifted accuracy, %", fontsize=9)
    write_bytes(path, png(page))


def _panel(axes: Axes, clean: np.ndarray, shifted: np.ndarray, tuned: np.ndarray) -> None:
    line = fitted(clean, shifted, tuned)
    low, high = logit(min(clean.min(), shifted.min())), logit(max(clean.max(), shifted.max()))
    ends = np.linspace(low - 0.3, high + 0.3, 2)
    through = f"line of {line.n} {'originals' if line.originals else 'models'}"
    axes.plot(ends, line.slope * ends + line.intercept, color=MUTED, label=through)
    axes.plot(ends, ends, color=GRID, linestyle=":")
    for part, color, label in ((~tuned, BEFORE, "original"), (tuned, AFTER, "tuned")):
        axes.scatter(logit(clean[part]), logit(shifted[part]), color=color, s=16, label=label)
    places = logit(np.array(_TICKS) / 100)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(places))
        axis.set_ticklabels([str(tick) for tick in _TICKS], fontsize=7)
    axes.set_xlim(ends[0], ends[1])
    axes.set_ylim(ends[0], ends[1])
    axes.legend(frameon=False, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
