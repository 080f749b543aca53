"""Effective robustness: shifted against clean accuracy of many models, and the line through them.

Taori et al., NeurIPS 2020: on logit axes the models lie near a line, and what counts is how far
above it a model is. Nothing is measured here; the accuracies are those of `refocus evaluate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from scipy.special import expit, logit

from refocus.errors import InputError
from refocus.evaluation.stored import RESULTS, read_evaluation
from refocus.figures.charts import AFTER, BEFORE, GRID, MUTED
from refocus.files import write_bytes
from refocus.outputs import MANIFEST, manifest_of
from refocus.probes.batch import Options
from refocus.probes.curves import png
from refocus.probes.results import Level
from refocus.records import ProbeRecord
from refocus.results import Compared, Estimate, Evaluation

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


def gathered(options: Options) -> list[ProbeRecord]:
    """A record for each model: its clean accuracy, and a shifted one for each test set in common.

    Shares, half a right answer added on either side, so that a logit is always finite.

    Raises:
        InputError: results of too few models, or without two test sets in common.
    """
    assert options.results is not None
    found = dict(_evaluations(options.results))
    if not found:
        raise InputError(
            f"‹results› {options.results}: holds no results of `refocus evaluate` ({RESULTS})"
        )
    clean, shifted = _sets(list(found.values()), options.results)
    rows: dict[tuple[object, ...], ProbeRecord] = {}
    for folder, top1 in found.items():
        for tuned in (False, True):
            values = _values(top1, clean, shifted, tuned)
            if values is None or None in (*values[_CLEAN], *values[_SHIFTED]):
                continue
            name = f"{folder} ({'tuned' if tuned else 'original'})"
            key = tuple(values.values())
            rows.setdefault(key, ProbeRecord(name, values))  # an original counts once
    if len(rows) < _LEAST:
        raise InputError(
            f"‹results› {options.results}: results of {len(rows)} different models; a line takes "
            f"at least {_LEAST}"
        )
    return list(rows.values())


def _evaluations(root: Path) -> Iterator[tuple[str, Top1]]:
    for file in sorted(root.rglob(RESULTS)):
        folder = file.parent
        if (folder / MANIFEST).exists() and manifest_of(folder).command == "evaluate":
            yield folder.relative_to(root).as_posix(), _top1(read_evaluation(file))


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
            f"‹results› {root}: a line takes two test sets or shifts that all {len(found)} results "
            f"have; in common: {shown}"
        )
    return common[0], common[1:]


def _values(
    top1: Top1, clean: str, shifted: Sequence[str], tuned: bool
) -> dict[str, tuple[float | None, ...]] | None:
    """The columns of one model, None where the results have none before tuning.

    A model alone, with none before it, counts as original.
    """
    paired = top1[clean].against is not None
    if tuned and not paired:
        return None
    shares = [
        _share(top1[name].against if paired and not tuned else top1[name].model)
        for name in (clean, *shifted)
    ]
    return {
        _CLEAN: (shares[0],) * len(shifted),
        _SHIFTED: tuple(shares[1:]),
        _TUNED: (float(tuned),) * len(shifted),
    }


def _share(found: Estimate | None) -> float | None:
    if found is None or found.value is None:
        return None
    return (found.value / 100 * found.n + 0.5) / (found.n + 1)


def levels(options: Options) -> list[Level]:
    """The shifted test sets."""
    assert options.results is not None
    found = [top1 for _, top1 in _evaluations(options.results)]
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
