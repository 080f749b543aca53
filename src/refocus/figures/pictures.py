"""Pictures: what a model saw, relevance over it, and grids of such tiles."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure  # without pyplot: no window, no global state
from torch import Tensor

from refocus.figures.charts import written
from refocus.files import write_bytes

COLORS = "inferno"  # perceptually even and readable with colour blindness; black is no relevance
_SIDE = 224  # pixels of a tile; a smaller one is enlarged without smoothing: nothing is invented


def to_picture(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """What the model saw: normalized `[3, H, W]` -> uint8 `[H, W, 3]`."""
    pixels = image.permute(1, 2, 0).cpu().numpy() * np.array(std) + np.array(mean)
    return np.asarray((255 * pixels.clip(0, 1)).round().astype(np.uint8))


def overlay(picture: np.ndarray, relevance: Tensor, opacity: float = 0.6) -> np.ndarray:
    """A heat map over a picture, which stays visible where relevance is low.

    picture: uint8 `[H, W, 3]`. relevance: `[H, W]` in [0, 1]. Returns uint8 `[H, W, 3]`.
    """
    level = relevance.cpu().numpy()[..., None]
    heat = matplotlib.colormaps[COLORS](level[..., 0])[..., :3] * 255
    weight = opacity * (0.35 + 0.65 * level)
    return np.asarray(((1 - weight) * picture + weight * heat).round().astype(np.uint8))


def figure(
    rows: list[list[np.ndarray]], titles: list[str], captions: list[list[str]], path: Path
) -> None:
    """Write a grid of tiles as PNG: a title above each column, a caption below each tile.

    rows: tiles uint8 `[H, W, 3]`. titles: one per column. captions: one per tile.
    """
    height, width = len(rows), len(titles)
    page = Figure(figsize=(2.1 * width, 2.35 * height + 0.2), layout="constrained")
    axes = page.subplots(height, width, squeeze=False)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            axes[y, x].imshow(enlarge(tile), interpolation="nearest")
            axes[y, x].set_xticks([])
            axes[y, x].set_yticks([])
            axes[y, x].set_xlabel(captions[y][x], fontsize=10, parse_math=False)
            if y == 0:
                axes[y, x].set_title(titles[x], fontsize=11, parse_math=False)
    write_bytes(path, written(page, "png", dpi=110))


def enlarge(tile: np.ndarray) -> np.ndarray:
    """Repeat pixels until the shorter side has at least `_SIDE`."""
    factor = -(-_SIDE // min(tile.shape[:2]))
    return tile.repeat(factor, 0).repeat(factor, 1)
