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

from refocus import references, runs
from refocus.errors import InputError
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
Top1 = dict[str, Compared]  # name of a test set -> both models' accuracy, percent


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
    top1: Top1
    beside: bool  # it is the one before
    places: dict[str, tuple[str, str]]  # test set -> where it lay, and its fingerprint

    def columns(
        self, clean: str, shifted: Sequence[str], *, tuned: bool
    ) -> dict[str, tuple[float | None, ...]] | None:
        """The columns of its record; None where a number is missing."""
        both = (self.top1[name] for name in (clean, *shifted))
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
    or where its folder is that of a run.

    Raises:
        InputError: results of too few models, or without two test sets in common.
    """
    assert options.results is not None
    found = list(_evaluations(options.results))
    if not found:
        raise InputError(
            f"‹results› {options.results}: holds no results of `refocus evaluate` ({RESULTS})"
        )
    clean, shifted = _sets([one.top1 for one in found], options.results)
    _warn_of_other_sets(found, (clean, *shifted))
    later = {one.key for one in found if one.key and (one.after or one.of_run)}
    rows: dict[tuple[object, ...], ProbeRecord] = {}
    for one in found:
        tuned = one.after or one.of_run or one.key in later
        values = one.columns(clean, shifted, tuned=tuned)
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
        keys, places = _keys(kept), _places(kept)
        name, top1 = folder.relative_to(root).as_posix(), _top1(found)
        if found.against is not None:
            of_run = _of_run(found.against)
            yield _Measured(name, keys.get(AGAINST), False, of_run, top1, True, places)
        of_run, after = _of_run(found.model), found.against is not None
        yield _Measured(name, keys.get(MODEL), after, of_run, top1, False, places)


def _keys(kept: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Which models were measured, by content, and by name where that is all that is known."""
    known = {which: kept.get(which) for which in (MODEL, AGAINST)}
    return {
        which: tuple(map(str, said[1:] or said))  # the first is where it lies
        for which, said in known.items()
        if isinstance(said, list) and said
    }


def _places(kept: dict[str, Any]) -> dict[str, tuple[str, str]]:
    files = kept.get("files") or {}
    return {name: (path, files.get(path, "")) for name, path in (kept.get("suites") or {}).items()}


def _warn_of_other_sets(found: Sequence[_Measured], names: Sequence[str]) -> None:
    """Say where two results call different images alike: people choose the names."""
    for name in dict.fromkeys(names):
        said = [(one.folder, one.places[name]) for one in found if name in one.places]
        for folder, (path, content) in said[1:]:
            if path != said[0][1][0] and content != said[0][1][1]:
                log.warning(
                    "%s is %s in %s and %s in %s: a line needs the same images in all results",
                    name,
                    said[0][1][0],
                    said[0][0],
                    path,
                    folder,
                )
                break


def _of_run(ref: str) -> bool:
    """Whether a model is the one that a tuning run left."""
    place = references.folder_of(ref)
    return place.name == runs.MODEL and runs.tuned(place.parent) is not None


def _top1(found: Evaluation) -> Top1:
    """Accuracies of all test sets, and of the shifts of each."""
    sets: Top1 = {}
    for name, entry in found.suites.items():
        if entry.kind == "classification":
            sets[name] = entry.first.top1
            sets.update({f"{name}, {kind}": shift.top1 for kind, shift in entry.shifts.items()})
    return sets


def _sets(found: Sequence[Top1], root: Path) -> tuple[str, list[str]]:
    """The first test set that all results have, which is the clean one, and the others."""
    common = [name for name in found[0] if all(name in top1 for top1 in found)]
    if len(common) < 2:
        shown = ", ".join(common) or "none"
        raise InputError(
            f"‹results› {root}: a line needs two test sets or shifts that all {len(found)} results "
            f"have; in common: {shown}"
        )
    return common[0], common[1:]


def _share(found: Estimate | None) -> float | None:
    if found is None or found.value is None:
        return None
    return (found.value / 100 * found.n + 0.5) / (found.n + 1)


def levels(options: Options) -> list[Level]:
    """The shifted test sets."""
    assert options.results is not None
    found = [one.top1 for one in _evaluations(options.results)]
    return list(_sets(found, options.results)[1])


def above_the_line(records: list[ProbeRecord]) -> list[ProbeRecord]:
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


def scatter(records: Sequence[ProbeRecord], _root: Path, path: Path) -> None:
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
