"""Out-of-distribution detection: can the answers tell the model's classes from other pictures?

Hendrycks and Gimpel, ICLR 2017; energy: Liu et al., NeurIPS 2020. Axes: R resamples, n images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from refocus.figures.charts import AFTER, BEFORE
from refocus.files import write_bytes
from refocus.probes.batch import Batch, Series
from refocus.probes.curves import png
from refocus.probes.pooled import Columns, Pooled
from refocus.records import ProbeRecord

SOFTMAX, ENERGY, GROUP = "maximum softmax probability", "energy", "outside"
LEVELS = ("FPR95", "AUROC")
_RECALL = 0.95  # of the images of the classes, at which false alarms are counted
_BINS = 30


def outside_scores(b: Batch) -> Series:
    """Two scores of each image, higher for the model's own classes, and which folder it is of.

    The softmax's maximum is kept as its logit, which orders images alike and does not run into 1.
    """
    with torch.no_grad():
        logits = b.logits(b.pixels).double().cpu()
    best, at = logits.max(1)
    others = logits.scatter(1, at[:, None], -torch.inf).logsumexp(1)
    return {
        SOFTMAX: (best - others)[:, None],
        ENERGY: logits.logsumexp(1)[:, None],
        GROUP: (b.labels.cpu() < 0).double()[:, None],
    }


def detection(columns: Columns, weights: np.ndarray) -> dict[str, np.ndarray]:
    """FPR95 and AUROC of both scores, of images that count `weights` `[R, n]` times: `[R, 2]`.

    AUROC: how often an image of the classes has the higher score of the two, ties counting half.
    FPR95: the share of outside images whose score is not below the threshold that 95 % of the
    images of the classes reach.
    """
    outside = columns[GROUP] > 0.5
    known, strange = weights[:, ~outside], weights[:, outside]
    found = {}
    for name in (SOFTMAX, ENERGY):
        scores, others = columns[name][~outside], columns[name][outside]
        above = _above(scores, others, known)
        area = (above * strange).sum(1) / (known.sum(1) * strange.sum(1))
        order = np.argsort(-scores, kind="stable")
        reached = known[:, order].cumsum(1) / known.sum(1, keepdims=True) >= _RECALL - 1e-9
        threshold = scores[order][reached.argmax(1)]
        alarms = (strange * (others >= threshold[:, None])).sum(1) / strange.sum(1)
        found[name] = np.stack([alarms, area], axis=1)
    return found


def _above(scores: np.ndarray, others: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Images of the classes that lie above each outside one, ties counting half: `[R, outside]`.

    By their order, as a table of all pairs would be too large. known: how often each counts.
    """
    order = np.argsort(scores, kind="stable")
    below = np.pad(known[:, order].cumsum(1), ((0, 0), (1, 0)))
    low, high = (np.searchsorted(scores[order], others, side) for side in ("left", "right"))
    wins: np.ndarray = below[:, -1:] - (below[:, low] + below[:, high]) / 2
    return wins


DETECTION = Pooled(detection, GROUP)


def histograms(records: Sequence[ProbeRecord], _root: Path, path: Path, _seed: int = 0) -> None:
    """How both scores are spread, inside and outside."""
    page = Figure(figsize=(8.6, 3), layout="constrained")
    groups = np.array([row.values[GROUP][0] for row in records], dtype=float) > 0.5
    for axes, name in zip(page.subplots(1, 2), (SOFTMAX, ENERGY), strict=True):
        scores = np.array([row.values[name][0] for row in records], dtype=float)
        bins = np.linspace(scores.min(), scores.max() + 1e-9, _BINS + 1)
        for part, color, label in (
            (~groups, AFTER, "classes of the model"),
            (groups, BEFORE, "outside"),
        ):
            shares = np.full(part.sum(), 100 / max(1, part.sum()))
            axes.hist(scores[part], bins, weights=shares, color=color, alpha=0.6, label=label)
        axes.set_xlabel(f"{name}{' (as logit)' if name == SOFTMAX else ''}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    page.axes[0].set_ylabel("images, %", fontsize=9)
    page.axes[0].legend(frameon=False, fontsize=8)
    write_bytes(path, png(page))
