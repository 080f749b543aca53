"""Pictures and pages: relevance overlays, before/after figures, one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from scipy.ndimage import binary_erosion
from torch import Tensor

from refocus.images import read_image

COLORS = "inferno"  # perceptually even and readable with colour blindness; black is no relevance
_SIDE = 224  # pixels of a tile; small inputs are enlarged without smoothing so that nothing is invented


def to_picture(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """What the model saw: normalized `[3, H, W]` -> uint8 `[H, W, 3]`."""
    pixels = image.permute(1, 2, 0).cpu().numpy() * np.array(std) + np.array(mean)
    return (255 * pixels.clip(0, 1)).round().astype(np.uint8)


def overlay(picture: np.ndarray, relevance: Tensor, opacity: float = 0.6) -> np.ndarray:
    """Relevance `[H, W]` in [0, 1] as a heat map over a picture uint8 `[H, W, 3]`; where it is low the picture stays visible."""
    level = relevance.cpu().numpy()[..., None]
    heat = matplotlib.colormaps[COLORS](level[..., 0])[..., :3] * 255
    weight = opacity * (0.35 + 0.65 * level)
    return ((1 - weight) * picture + weight * heat).round().astype(np.uint8)


def figure(rows: list[list[np.ndarray]], titles: list[str], captions: list[list[str]], path: Path) -> None:
    """A grid of tiles `[H, W, 3]` with a title above each column and a caption below each tile, as PNG."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

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
    page.savefig(path, dpi=110)


def enlarge(tile: np.ndarray) -> np.ndarray:
    """Repeat pixels until the shorter side has at least `_SIDE`."""
    factor = -(-_SIDE // min(tile.shape[:2]))
    return tile.repeat(factor, 0).repeat(factor, 1)


def save_picture(picture: np.ndarray, path: Path) -> None:
    Image.fromarray(picture).save(path)


def embed(path: Path) -> str:
    """A PNG as a data URI, so that a page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def bar_chart(series: dict[str, list[float]], labels: list[str], ylabel: str) -> str:
    """Grouped bars as a data URI: series name -> one value per label."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.5, 3), layout="constrained")
    axes = page.subplots()
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        at = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * width
        bars = axes.bar(
            at, values, width, label=name, color=matplotlib.colormaps["viridis"](0.15 + 0.7 * i / max(1, len(series) - 1))
        )
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1.02))
    buffer = io.BytesIO()
    page.savefig(buffer, dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def contact_sheet(records: list[dict[str, Any]], masks: Path, images: Path, *, usable: float) -> str:
    """One page of what `masks.json` lists (worst first): the worst 60 and, for comparison, 12 spread over the rest."""
    worst, rest = records[:60], records[60:]
    shown = {
        "The lowest scores": worst,
        "For comparison, spread over the rest": [rest[i] for i in np.linspace(0, len(rest) - 1, min(12, len(rest))).astype(int)],
    }
    tiles = {
        title: [{**r, "picture": _masked_tile(Path(r["image"]), masks / r["mask"])} for r in group]
        for title, group in shown.items()
    }
    counts = np.histogram([r["score"] for r in records], bins=10, range=(0, 1))[0].tolist()
    below = sum(r["score"] < usable for r in records)
    return page("masks.html.j2", tiles=tiles, counts=counts, total=len(records), below=below, usable=usable, images=images.name)


def _masked_tile(image: Path, mask: Path, width: int = 220) -> str:
    """An image beside itself with the background dimmed, as a data URI; the outline of the mask is drawn in both."""
    picture = read_image(image)
    with Image.open(mask) as shape:
        size = (width, max(1, min(2 * width, round(width * picture.height / picture.width))))
        pixels = np.asarray(picture.resize(size))
        inside = np.asarray(shape.convert("L").resize(size)) > 127
    outline = inside ^ binary_erosion(inside, iterations=2)
    halves = [pixels.copy(), np.where(inside[..., None], pixels, pixels // 4)]
    for half in halves:
        half[outline] = (255, 176, 0)  # amber: apart from most pictures, and for all kinds of colour vision
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(halves, axis=1).astype(np.uint8)).save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def page(template: str, **content: Any) -> str:
    """Render a template of the package; a missing value is an error, text is escaped."""
    return (
        Environment(loader=PackageLoader("refocus", "assets"), autoescape=True, undefined=StrictUndefined)
        .get_template(template)
        .render(**content)
    )
