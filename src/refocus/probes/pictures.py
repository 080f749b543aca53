"""The picture of a probe: what the model sees at each level, or what the probe itself shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from refocus.errors import InputError
from refocus.figures.pictures import figure
from refocus.probes.batch import Batch, Views
from refocus.probes.material import Material
from refocus.probes.registry import Probe
from refocus.probes.results import Level
from refocus.probes.seen import Loader, batch_of
from refocus.records import ProbeRecord

FILE = "picture.png"
_SHOWN = 4  # images in a probe's own picture
_COLUMNS = 7  # levels in a strip, at most


def write(
    row: Probe,
    model: nn.Module,
    material: Material,
    folder: Path,
    answers: Sequence[ProbeRecord],
) -> None:
    """Write the picture, where the probe has one: of the first image, or of the first four.

    answers: the model's records, for a picture that is made of all of them.
    """
    if row.album is not None:
        root = folder if row.found else material.root(row)
        row.album(answers, root, folder / FILE, material.settings.seed)
    elif row.picture is not None:
        row.picture(_first(row, model, material, _SHOWN), folder / FILE)
    elif not row.numbers:
        _strip(row.run(_first(row, model, material, 1)), row.levels_of(model), folder / FILE)


def _first(row: Probe, model: nn.Module, material: Material, count: int) -> Batch:
    """The first images that can be read."""
    load = Loader(model, with_mask="masks" in row.needs)
    tiles, shown = [], []
    for sample in material.samples(row, model):
        try:
            tiles.append(load(sample))
            shown.append(sample)
        except InputError:  # counted and named already
            continue
        if len(shown) == count:
            break
    return batch_of(model, shown, torch.stack(tiles), material.root(row), material)


def _strip(views: Views, levels: list[Level], path: Path) -> None:
    """A row for each series, a column for each of at most seven levels, evenly taken."""
    rows: dict[str, list[Any]] = {}
    for series, pixels in views:
        picture = (255 * pixels[0].permute(1, 2, 0).cpu().numpy()).round().astype(np.uint8)
        rows.setdefault(series, []).append(picture)
    at = np.linspace(0, len(levels) - 1, min(_COLUMNS, len(levels)))
    some = np.unique(at.round().astype(int)).tolist()
    figure(
        [[rows[series][i] for i in some] for series in rows],
        [f"{levels[i]}" for i in some],
        [[series if n == 0 else "" for n, _ in enumerate(some)] for series in rows],
        path,
    )
