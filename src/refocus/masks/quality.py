"""How far a mask can be trusted, without knowing the truth.

A score in [0, 1] and the reasons for doubt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label as connected_parts

from refocus.masks.discovery import border_contact

_AREA = (0.01, 0.85)  # outside, a mask is more often a slip than an object
_BORDER = 0.4  # an object that covers more of the frame than this may be the background
_PARTS = 0.6  # the largest part should hold this share of the mask
_AGREEMENT = 0.6  # overlap of two readings below which one of them is probably wrong
_EDGES = 0.75  # overlap before and after refinement


@dataclass(frozen=True)
class Quality:
    """score: the product of `agreement`, `edges` and what the shape costs.

    area: share of the image. border: share of the frame covered. parts: connected parts. largest:
    share of the mask in the largest part. agreement: overlap (IoU) of two readings, edges: overlap
    of the mask before and after it followed the image's edges; None where there is nothing to
    compare. doubts: why to look at it.
    """

    score: float
    area: float
    border: float
    parts: int
    largest: float
    agreement: float | None
    edges: float | None
    doubts: tuple[str, ...]


def assess(mask: np.ndarray, agreement: float | None = None, edges: float | None = None) -> Quality:
    """Judge a bool mask `[H, W]`.

    The score is agreement times edges (1 where there is nothing to compare), lowered in proportion
    by each measure of the shape that lies beyond its limit; an empty or full mask has score 0.
    """
    area = float(mask.mean())
    if not 0 < area < 1:
        return Quality(
            0.0,
            area,
            area,
            int(area > 0),
            area,
            agreement,
            edges,
            ("empty" if area == 0 else "covers the whole image",),
        )
    parts, count = connected_parts(mask, np.ones((3, 3)))
    largest = float(np.bincount(parts.ravel())[1:].max() / mask.sum())
    border = border_contact(mask)
    factors = {
        "very small": min(1, area / _AREA[0]),
        "covers most of the image": min(1, (1 - area) / (1 - _AREA[1])),
        "touches much of the border": min(1, (1 - border) / (1 - _BORDER)),
        "is in several pieces": min(1, largest / _PARTS),
    }
    doubts = [name for name, factor in factors.items() if factor < 1]
    if agreement is not None and agreement < _AGREEMENT:
        doubts.append("two readings disagree")
    if edges is not None and edges < _EDGES:
        doubts.append("does not follow the image's edges")
    score = float(np.prod([*factors.values(), *(v for v in (agreement, edges) if v is not None)]))
    return Quality(score, area, border, count, largest, agreement, edges, tuple(doubts))
