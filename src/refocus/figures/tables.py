"""`results.json` -> rows of tables, the same for the terminal, Markdown, CSV and HTML.

No difference without an interval.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
    "suite", "measure", "protocol", "n", "value", "low", "high", "before",
    "difference", "difference_low", "difference_high",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One number of the model and, where there is one, of the model before.

    value and before are in the measure's unit, intervals are [low, high]. digits: decimals to show.
    """

    name: str
    measure: str
    n: int
    value: float | None
    interval: list[float] | None
    protocol: str = ""
    before: float | None = None
    difference: float | None = None
    difference_interval: list[float] | None = None
    digits: int = 1
    chance: float | None = None  # McNemar's p-value, for differences of accuracies

    @property
    def value_text(self) -> str:
        """The number of the model, as shown."""
        return "-" if self.value is None else f"{self.value:.{self.digits}f}"

    @property
    def interval_text(self) -> str:
        """Its interval, as shown."""
        return _between(self.interval, self.digits, "")

    @property
    def before_text(self) -> str:
        """The number of the model before, as shown."""
        return "-" if self.before is None else f"{self.before:.{self.digits}f}"

    @property
    def difference_text(self) -> str:  # never without its interval
        """The difference with its interval, as shown."""
        return (
            "-"
            if self.difference is None or not self.difference_interval
            else f"{self.difference:+.{self.digits}f}"
        )

    @property
    def difference_interval_text(self) -> str:
        """The interval of the difference, as shown."""
        return _between(self.difference_interval, self.digits, "+")

    @property
    def decided(self) -> int:
        """1 or -1 where a difference is shown, else 0.

        Its interval must leave 0 out, and McNemar's test agree.
        """
        if not self.difference_interval or (self.chance is not None and self.chance >= 0.05):
            return 0
        low, high = self.difference_interval
        return 1 if low > 0 else -1 if high < 0 else 0


def _between(interval: list[float] | None, digits: int, sign: str) -> str:
    return "{:{s}.{d}f} to {:{s}.{d}f}".format(*interval, s=sign, d=digits) if interval else "-"


def accuracy_rows(entries: dict[str, Any]) -> list[Row]:
    """Top-1 of every suite, protocol and shift."""
    rows = []
    for name, entry in entries.items():
        for protocol, found in entry.get("protocols", {}).items():
            rows.append(_accuracy_row(name, protocol, found))
        for kind, found in entry.get("shifts", {}).items():
            title = f"{name}: {kind}" + (" (mean)" if "levels" in found else "")
            rows.append(_accuracy_row(title, "standard", found))
    return rows


def _accuracy_row(name: str, protocol: str, found: dict[str, Any]) -> Row:
    difference = found.get("difference", {})
    return Row(
        name,
        "top-1",
        found["n"],
        found["top1"],
        found["top1_interval"],
        protocol,
        found.get("against", {}).get("top1"),
        difference.get("top1"),
        difference.get("interval"),
        chance=difference.get("mcnemar"),
    )


def other_rows(entries: dict[str, Any]) -> list[Row]:
    """All but top-1: top-5, reliance on the background, maps, calibration, shape bias."""
    return [row for name, entry in entries.items() for row in _others(name, entry)]


def _others(name: str, entry: dict[str, Any]) -> Iterator[Row]:
    if "background" in entry:
        found = entry["background"]
        for key, title, digits in (
            ("bg_gap", "BG-gap, points", 1),
            ("confidence_change", "confidence change by swap", 3),
        ):
            yield _estimate_row(
                name,
                title,
                found["model"][key],
                found.get("against", {}).get(key),
                found,
                key,
                digits=digits,
            )
    for key, title in MEASURES.items():
        if key in entry.get("maps", {}):
            m = entry["maps"][key]
            change = (m.get("against"), m.get("difference"), m.get("difference_interval"))
            yield Row(name, title, m["n"], m["value"], m["interval"], "", *change, digits=3)
    for protocol, found in entry.get("protocols", {}).items():
        several = f" ({protocol})" if len(entry["protocols"]) > 1 else ""
        change = found.get("difference", {})
        yield Row(
            name, f"top-5, %{several}", found["n"], found["top5"], found["top5_interval"], protocol,
            found.get("against", {}).get("top5"), change.get("top5"), change.get("top5_interval"),
        )  # fmt: skip
        error, before = (
            found["calibration_error"],
            found.get("against", {}).get("calibration_error", {}),
        )
        change = found.get("calibration_difference", {})
        title = f"squared calibration error{several}"
        yield Row(
            name, title, error["n"], error["value"], error["interval"], protocol,
            before.get("value"), change.get("value"), change.get("interval"), digits=4,
        )  # fmt: skip
    if entry["kind"] == "cue conflict":
        change = entry.get("difference", {})
        before = entry.get("against", {}).get("shape_bias")
        decided = entry["shape_decisions"] + entry["texture_decisions"]
        title = f"shape bias ({decided} of {entry['n']} by a cue)"
        yield Row(
            name, title, entry["n"], entry["shape_bias"], entry["interval"], "",
            before, change.get("shape_bias"), change.get("interval"), digits=3,
        )  # fmt: skip


def _estimate_row(
    name: str,
    title: str,
    now: dict[str, Any],
    before: dict[str, Any] | None,
    found: dict[str, Any],
    key: str,
    *,
    digits: int,
) -> Row:
    change = found.get("difference", {}).get(key, {})
    past = before["value"] if before else None
    return Row(
        name,
        title,
        now["n"],
        now["value"],
        now["interval"],
        "",
        past,
        change.get("value"),
        change.get("interval"),
        digits,
    )


def markdown(rows: Sequence[Row]) -> str:
    """One table; the columns of a model before appear where there is one."""
    paired = any(row.before is not None for row in rows)
    head = [
        "suite",
        "measure",
        "protocol",
        "n",
        "value",
        "95 %",
        *(["before", "difference", "95 %"] if paired else []),
    ]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        change = (
            [row.before_text, row.difference_text, row.difference_interval_text] if paired else []
        )
        lines.append(
            [
                row.name,
                row.measure,
                row.protocol,
                str(row.n),
                row.value_text,
                row.interval_text,
                *change,
            ]
        )
    return (
        "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )
        + "\n"
    )


def as_csv(rows: Sequence[Row]) -> str:
    """All numbers in full precision."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(HEAD)
    for row in rows:
        (low, high), (worse, better) = row.interval or ("", ""), row.difference_interval or ("", "")
        difference = row.difference if row.difference_interval else None
        numbers = [row.value, low, high, row.before, difference, worse, better]
        writer.writerow(
            [row.name, row.measure, row.protocol, row.n, *("" if v is None else v for v in numbers)]
        )
    return sink.getvalue()
