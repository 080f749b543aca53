"""The reproduction sheet: every number of the paper's Tables 1 to 3 with ours beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from refocus.studies.paper import Cell, cells
from refocus.studies.results import Claim, Line
from refocus.studies.writing import METRICS

SUITE_TITLES = {
    "imagenet": "ImageNet",
    "imagenet-a": "ImageNet-A",
    "imagenet-r": "ImageNet-R",
    "imagenet-sketch": "ImageNet-Sketch",
    "imagenet-v2": "ImageNet-V2",
    "objectnet": "ObjectNet",
    "si-location": "SI-Score location",
    "si-rotation": "SI-Score rotation",
    "si-size": "SI-Score size",
    "imagenet-segmentation": "ImageNet-Segmentation",
}
SPREAD = 0.5  # points: about the deviation over seeds that the paper's Table 8 prints
HEAD = ("Dataset", "Model", "Metric", "Claimed", "Ours", "Status")
_TITLES = {
    "original": "",
    "relevance": " (Opt Relevance)",
    "gradmask": " (GradMask)",
    "rrr": " (RRR)",
}


def status(claimed: float, line: Line | None) -> str:
    """`verified` where the claim lies in our 95 % interval over images, else `not reproduced`.

    Give or take `SPREAD`.
    """
    if line is None or line.number.value is None:
        return "not run"
    low, high = line.number.interval or (line.number.value, line.number.value)
    return "verified" if low - SPREAD <= claimed <= high + SPREAD else "not reproduced"


def claims(lines: Sequence[Line], titles: Mapping[str, tuple[str, str]]) -> tuple[Claim, ...]:
    """Every claim, with ours where it was run.

    titles: title of a line's method -> the paper's name of it, and the kind of masks.
    """
    ours = {
        (line.model, *titles[line.method], line.suite, line.metric): line
        for line in lines
        if line.method in titles
    }
    return tuple(
        _claim(cell, ours.get((cell.model, cell.method, cell.masks, cell.suite, cell.metric)))
        for cell in cells()
        if cell.table <= 3 and cell.model != "average"
    )


def _claim(cell: Cell, line: Line | None) -> Claim:
    automatic = ", automatic masks" if cell.masks == "unsupervised" else ""
    metric = METRICS[cell.metric]
    return Claim(
        SUITE_TITLES[cell.suite],
        cell.model + _TITLES[cell.method].replace(")", automatic + ")"),
        metric.capitalize() + " Accuracy" if cell.metric.startswith("top") else metric,
        cell.value,
        None if line is None else line.number.value,
        status(cell.value, line),
    )


def sheet_text(sheet: Sequence[Claim]) -> str:
    """Tab-separated, one claim a line, as the public sheet has it."""
    rows = ["\t".join(HEAD)]
    for row in sheet:
        ours = "-" if row.ours is None else f"{row.ours:.1f}"
        rows.append(
            "\t".join([row.dataset, row.model, row.metric, f"{row.claimed}", ours, row.status])
        )
    return "\n".join(rows) + "\n"
