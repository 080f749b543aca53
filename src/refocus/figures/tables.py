"""What was measured -> rows of tables, the same for the terminal, Markdown, CSV and HTML.

No difference without an interval.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from refocus.figures.escape import harmless, inline
from refocus.intervals import counted
from refocus.results import Compared, Interval, SuiteEntry

MEASURES = {  # key in an entry's maps -> title
    "background_share": "relevance on the background",
    "pixel_accuracy": "map: pixel accuracy",
    "miou": "map: mean IoU",
    "map": "map: mean average precision",
    "pointing": "pointing game",
    "insertion": "insertion",
    "deletion": "deletion",
}
HEAD = (
    "suite", "measure", "protocol", "n", "value", "low", "high", "against",
    "difference", "difference_low", "difference_high",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One number of a table, ready to be written."""

    name: str  # of the suite
    measure: str  # its title
    number: Compared  # in the measure's unit
    protocol: str = ""
    digits: int = 1  # decimals to show

    @property
    def n(self) -> int:
        """Images."""
        return self.number.model.n

    @property
    def paired(self) -> bool:
        """Is there a model to compare with?"""
        return self.number.against is not None

    @property
    def n_text(self) -> str:
        """How many images, marked where they are few."""
        return counted(self.n)

    @property
    def value_text(self) -> str:
        """The number of the model."""
        return _plain(self.number.model.value, self.digits)

    @property
    def interval_text(self) -> str:
        """Its interval."""
        return between(self.number.model.interval, self.digits)

    @property
    def against_text(self) -> str:
        """The number of the model compared with."""
        against = self.number.against
        return _plain(against.value if against else None, self.digits)

    @property
    def difference_text(self) -> str:
        """The change; never without its interval."""
        change = self.number.change
        shown = change is not None and change.difference is not None and change.interval is not None
        return f"{change.difference:+.{self.digits}f}" if shown and change else "-"

    @property
    def difference_interval_text(self) -> str:
        """The interval of the change."""
        change = self.number.change
        return between(change.interval if change else None, self.digits, "+")

    @property
    def decided(self) -> int:
        """1 or -1 where the change's interval leaves 0 out and its test agrees, else 0.

        The interval as it is shown: a bound that rounds to 0 decides nothing.
        """
        change = self.number.change
        if change is None or change.interval is None:
            return 0
        nearest = min(map(abs, change.interval))
        return change.decided if round(nearest, self.digits) else 0


@dataclass(frozen=True)
class KeyNumber:
    """One of the numbers at the top of a page, as it is shown."""

    value: str  # with its unit
    name: str  # in plain words
    detail: str = ""  # its interval, or what to compare it with


def _plain(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def between(interval: Interval | None, digits: int, sign: str = "") -> str:
    """An interval in words; `sign` is "+" for changes."""
    return "{:{s}.{d}f} to {:{s}.{d}f}".format(*interval, s=sign, d=digits) if interval else "-"


def accuracy_rows(suites: Mapping[str, SuiteEntry]) -> list[Row]:
    """Top-1 of every suite, protocol and shift."""
    rows = []
    for name, entry in suites.items():
        for protocol, answers in entry.protocols.items():
            rows.append(Row(name, "top-1", answers.top1, protocol))
        for kind, shift in entry.shifts.items():
            title = f"{name}: {kind}" + (" (mean)" if shift.levels else "")
            rows.append(Row(title, "top-1", shift.top1, "standard"))
    return rows


def other_rows(suites: Mapping[str, SuiteEntry]) -> list[Row]:
    """All but top-1: top-5, reliance on the background, maps, calibration, shape bias."""
    return [row for name, entry in suites.items() for row in _others(name, entry)]


def _others(name: str, entry: SuiteEntry) -> Iterator[Row]:
    if entry.background:
        change = "change of confidence"
        yield Row(name, "BG-gap, points", entry.background.bg_gap, "standard")
        yield Row(name, change, entry.background.confidence_change, "standard", 3)
    for key, title in MEASURES.items():
        if key in entry.maps:
            yield Row(name, title, entry.maps[key], entry.scale, 3)
    for protocol, answers in entry.protocols.items():
        several = f" ({protocol})" if len(entry.protocols) > 1 else ""
        yield Row(name, f"top-5, %{several}", answers.top5, protocol)
        error = answers.calibration_error
        levels = [error.model, *([error.against] if error.against else [])]
        none = " (0: none beyond chance)" if any(level.value == 0 for level in levels) else ""
        title = f"squared calibration error{several}{none}"
        yield Row(name, title, error, protocol, digits=4)
    if entry.cues:
        decided = entry.cues.model.shape_decisions + entry.cues.model.texture_decisions
        title = f"shape bias ({decided} of {entry.n} by a cue)"
        yield Row(name, title, entry.cues.shape_bias, digits=3)


def markdown(rows: Sequence[Row]) -> str:
    """One table; the columns of a model compared with appear where there is one."""
    paired = any(row.paired for row in rows)
    head = ["suite", "measure", "protocol", "n", "value", "95 %"]
    head += ["against", "difference", "95 %"] if paired else []
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = [*map(inline, (row.name, row.measure, row.protocol)), row.n_text]
        cells += [row.value_text, row.interval_text]
        if paired:
            cells += [row.against_text, row.difference_text, row.difference_interval_text]
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """All numbers in full precision."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(HEAD)
    for row in rows:
        model, against, change = row.number.model, row.number.against, row.number.change
        numbers = [model.value, *(model.interval or (None, None))]
        numbers.append(against.value if against else None)
        if change and change.interval:  # no difference without its interval
            numbers += [change.difference, *change.interval]
        else:
            numbers += [None, None, None]
        texts = ["" if number is None else number for number in numbers]
        names = map(harmless, (row.name, row.measure, row.protocol))
        writer.writerow([*names, row.n, *texts])
    return sink.getvalue()
