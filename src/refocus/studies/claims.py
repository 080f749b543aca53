"""The reproduction sheet: every number of the paper's Tables 1 to 3 with ours beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scipy.stats import norm

from refocus.results import Estimate
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
MARGIN = 1.0  # points: above the deviations over seeds in the paper's Table 8, 0.9 at most
MINIMUM = 1000  # images
LEVEL = 0.05
RULE = (
    f"verified: within {MARGIN:g} point of the claim by an equivalence test at {LEVEL:.0%}; not "
    f"reproduced: further away by the 95 % interval; not decided: neither, or fewer than {MINIMUM} "
    "images"
)
HEAD = ("Dataset", "Model", "Metric", "Claimed", "Ours", "Status")
_TITLES = {
    "original": "",
    "relevance": " (Opt Relevance)",
    "gradmask": " (GradMask)",
    "rrr": " (RRR)",
}


def status(claimed: float, line: Line | None) -> str:
    """What an equivalence test says of a claim.

    `verified`: ours is within `MARGIN` points of it, two one-sided tests at 5 % (Schuirmann,
    Journal of Pharmacokinetics and Biopharmaceutics 1987). `not reproduced`: it is further away,
    by our 95 % interval. `not decided`: neither, or fewer than `MINIMUM` images. So fewer images
    decide less, and never verify more.
    """
    if line is None or line.number.value is None:
        return "not run"
    found = equivalence(claimed, line.number)
    if found is None or line.number.interval is None:
        return "not decided"
    low, high = line.number.interval
    if found < LEVEL:
        return "verified"
    apart = low > claimed + MARGIN or high < claimed - MARGIN
    return "not reproduced" if apart else "not decided"


def equivalence(claimed: float, ours: Estimate) -> float | None:
    """P-value of the larger of both one-sided tests; None where there are too few images.

    Normal, with the standard error that the 95 % interval stands for.
    """
    if ours.value is None or ours.interval is None or ours.n < MINIMUM:
        return None
    error = (ours.interval[1] - ours.interval[0]) / (2 * float(norm.ppf(0.975)))
    away = ours.value - claimed
    return float(max(norm.sf((away + MARGIN) / error), norm.cdf((away - MARGIN) / error)))


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
        0 if line is None else line.number.n,
        None if line is None else equivalence(cell.value, line.number),
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
