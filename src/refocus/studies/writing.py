"""The lines of a study in writing: Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from refocus.figures.escape import harmless, inline
from refocus.intervals import FEW
from refocus.studies.results import Line
from refocus.studies.words import signed

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "pixel_accuracy": "pixel accuracy",
    "miou": "mean IoU",
    "map": "mAP",
}
NOTE = (
    "Brackets after a change hold its 95 % interval, paired with the original on the same images; "
    "with several draws it covers draws and images. ± is the standard deviation over draws. "
    'Rows "the paper" hold its own numbers on its own models and data; beside your own folder, '
    "those of ViT-B on the nearest data set."
)
Table = list[list[str]]  # rows of cells, the head first


def table_of(lines: Sequence[Line]) -> Table:
    """A row for each method (and group of classes), a column for each suite and metric.

    Below each the paper's, if it has one.
    """
    columns = list(dict.fromkeys((line.suite, line.metric) for line in lines))
    rows: dict[tuple[str, str, str], dict[tuple[str, str], Line]] = defaultdict(dict)
    for line in lines:
        rows[line.model, line.method, line.classes][line.suite, line.metric] = line
    table = [["model", "method", *(_title(column, rows.values()) for column in columns)]]
    for (name, method, which), found in rows.items():
        draws = max(line.draws for line in found.values())
        title = method + (f", {draws} draws" if draws > 1 else "")
        title += "" if which == "all" else f", {which} classes"
        table.append([name, title, *(_ours(found.get(c)) for c in columns)])
        if any(line.paper is not None or line.paper_change is not None for line in found.values()):
            table.append(["", "*the paper*", *(_theirs(found.get(c)) for c in columns)])
    return table


def _title(column: tuple[str, str], rows: Any) -> str:
    """Suite and metric, marked where there are few images; groups without any are left blank."""
    suite, metric = column
    counts = [found[column].number.n for found in rows if column in found]
    count = min((n for n in counts if n), default=0)
    return f"{suite} {METRICS[metric]}" + (f" (n = {count}, few)" if count < FEW else "")


def markdown(lines: Sequence[Line]) -> str:
    """`table_of` in Markdown."""
    head, *rows = table_of(lines)
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    text += ["| " + " | ".join([inline(name), *cells]) + " |" for name, *cells in rows]
    return "\n".join(text) + "\n"


def _ours(line: Line | None) -> str:
    if line is None:
        return "-"
    text = "" if line.number.value is None else f"{line.number.value:.1f}"
    text += f" ± {line.spread:.1f}" if line.spread is not None and text else ""
    if line.change is not None and line.change.difference is not None:
        text += f" {signed(line.change.difference)}"
        if line.change.interval is not None:
            text += " ({} to {})".format(*map(signed, line.change.interval))
    return text.strip() or "-"


def _theirs(line: Line | None) -> str:
    if line is None:
        return "-"
    text = "" if line.paper is None else f"{line.paper:.1f}"
    text += "" if line.paper_change is None else f" {signed(line.paper_change)}"
    return text.strip() or "-"


# --- CSV ----------------------------------------------------------------------------------------


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """Rows that have the same keys; the keys are the head."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else harmless(v) for k, v in row.items()} for row in rows)
    return sink.getvalue()


def flat(line: Line) -> dict[str, Any]:
    """A line as a row of numbers in full precision."""
    low, high = line.number.interval or (None, None)
    change = line.change
    change_low, change_high = (change.interval if change else None) or (None, None)
    return {
        "model": line.model,
        "method": line.method,
        "suite": line.suite,
        "metric": line.metric,
        "n": line.number.n,
        "value": line.number.value,
        "low": low,
        "high": high,
        "change": change.difference if change else None,
        "change_low": change_low,
        "change_high": change_high,
        "std": line.spread,
        "draws": line.draws,
        "paper": line.paper,
        "paper_change": line.paper_change,
        "classes": line.classes,
    }
