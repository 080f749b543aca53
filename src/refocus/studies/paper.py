"""The paper's numbers, every cell of its Tables 1-4 and 8-12, to stand beside ours.

Imports no torch.

`assets/paper.csv` keeps them as printed. Of the two rows "Ours" in Tables 1 and 2 the first is the
one with annotated masks: only so do Table 4's "Ours" and the averages follow from the rows. NOTES
says where the paper contradicts itself.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

MODELS = ("ViT-B", "ViT-L", "AR-S", "AR-B", "AR-L", "DeiT-S", "DeiT-B")
NOTES = (
    "Table 10, AR-B: trained and untrained classes are very probably exchanged in INet val, INet-A "
    "and ObjectNet; only then do the "
    "printed averages follow from the rows.",
    "Table 10, average change, INet-v2 top-1, training classes: +0.5 printed, -0.1 from the rows.",
    "Table 11, average change, SI-location top-1, other classes: +3.7 printed, +3.9 from the rows.",
    "The benchmark sheet's 'DeiT-L' rows are the paper's DeiT-B, and its 'Opt Relevance' is the "
    "better of the two kinds of masks.",
)


@dataclass(frozen=True)
class Cell:
    """One printed number.

    masks: annotated, unsupervised, or empty for models as they come. classes: all, trained,
    untrained.
    """

    table: int
    model: str
    method: str
    masks: str
    classes: str
    suite: str
    metric: str
    value: float
    std: float | None


@cache
def cells() -> tuple[Cell, ...]:
    """All of them, in the order of the paper."""
    lines = (
        files("refocus").joinpath("assets", "paper.csv").read_text(encoding="utf-8").splitlines()
    )
    return tuple(
        Cell(
            int(row["table"]),
            row["model"],
            row["method"],
            row["masks"],
            row["classes"],
            row["suite"],
            row["metric"],
            float(row["value"]),
            float(row["std"]) if row["std"] else None,
        )
        for row in csv.DictReader(lines)
    )


def published(
    table: int,
    model: str,
    method: str,
    suite: str,
    metric: str = "top1",
    *,
    masks: str = "annotated",
    classes: str = "all",
) -> float | None:
    """A printed number, None where the paper has none."""
    masks = "" if method == "original" else masks
    wanted = (table, model, method, masks, classes, suite, metric)
    return next(
        (
            c.value
            for c in cells()
            if (c.table, c.model, c.method, c.masks, c.classes, c.suite, c.metric) == wanted
        ),
        None,
    )
