"""What the features hold: linear heads on them, and the images that excite their units.

Axes: B images, D features, L blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from refocus.data.images import read_image
from refocus.figures.pictures import figure
from refocus.probes.batch import Batch, Series
from refocus.probes.results import Level
from refocus.probes.tools import linear
from refocus.probes.tools.surgery import blocks
from refocus.probes.tools.tokens import block_tokens, last_layer, mlp_units
from refocus.records import ProbeRecord
from refocus.relevance.answers import last_linear_input

LABEL = "label"  # the column of a record that says which class an image is of

# --- transfer -----------------------------------------------------------------------------------

SHOTS: tuple[Level, ...] = (1, 2, 4, 8)
ALL = "all"


def transfer_features(b: Batch) -> Series:
    """What the classifier reads of each image, `[B, D]`, and its class in the other folder."""
    with torch.no_grad():
        features = last_linear_input(b.model, b.normalized(b.pixels))[1]
    return {"features": features.flatten(1).float().cpu(), LABEL: b.labels.cpu()[:, None].float()}


def transfer_answers(records: list[ProbeRecord], seed: int) -> list[ProbeRecord]:
    """Which classes a linear head tells, fitted on few or all other images."""
    features, labels = _table(records, "features"), _labels(records)
    shots = (1, 2, 4, 8, None)
    found = [linear.held_out(features, labels, shots=some, seed=seed) for some in shots]
    return _answered(records, np.stack(found, axis=1), "linear head")


# --- a head on each block's token ---------------------------------------------------------------


def heads_at(model: nn.Module) -> list[Level]:
    """Levels of `block_features`: each block, and all together."""
    return [*(str(number) for number in range(1, len(blocks(model)) + 1)), ALL]


def block_features(b: Batch) -> Series:
    """The token that is read behind each block, and the image's class."""
    tokens = block_tokens(b.model, b.normalized(b.pixels)).float().cpu()
    by_block = {str(number): part for number, part in enumerate(tokens.unbind(1), 1)}
    return {**by_block, LABEL: b.labels.cpu()[:, None].float()}


def block_answers(records: list[ProbeRecord], seed: int) -> list[ProbeRecord]:
    """Which classes a linear head tells from each block's token, and from all side by side."""
    labels = _labels(records)
    parts = [_table(records, name) for name in records[0].values if name != LABEL]
    tables = [*parts, np.concatenate(parts, axis=1)]
    found = np.stack([linear.held_out(table, labels, seed=seed) for table in tables], axis=1)
    return _answered(records, found, "linear head")


def _table(records: Sequence[ProbeRecord], name: str) -> np.ndarray:
    return np.array([row.values[name] for row in records], dtype=np.float64)


def _labels(records: Sequence[ProbeRecord]) -> np.ndarray:
    """Classes by a number of their own `[n]`, counted in the order of the images.

    A model's own numbers would give models that order their classes differently other folds.
    """
    found = _table(records, LABEL)[:, 0]
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    numbers: np.ndarray = np.argsort(np.argsort(first))[inverse]
    return numbers


def _answered(records: Sequence[ProbeRecord], table: np.ndarray, series: str) -> list[ProbeRecord]:
    """A number for each image and level, None where there is none; table: `[n, levels]`."""
    return [
        ProbeRecord(row.image, {series: tuple(None if np.isnan(v) else float(v) for v in values)})
        for row, values in zip(records, table, strict=True)
    ]


# --- units --------------------------------------------------------------------------------------

STRONGEST = (2, 4, 8, 16)  # images that excite a unit most
_SHOWN, _COLUMNS, _SIDE = 8, 7, 128  # units and images of the picture, pixels of an image
ACTIVATION = "activation"


def unit_activations(b: Batch) -> Series:
    """How strongly each image excites each unit, `[B, U]`, and the image's class.

    Units of the last block's MLP, or with `units` token the entries of its class token.
    """
    images = b.normalized(b.pixels)
    if b.options.units == "token":
        found = block_tokens(b.model, images)[:, -1]
    else:
        found = mlp_units(b.model, images, len(blocks(b.model)) - 1)
    return {ACTIVATION: found.float().cpu(), LABEL: b.labels.cpu()[:, None].float()}


def mlp_can_be_read(model: nn.Module) -> None:
    """Refuse a model whose last MLP cannot be told apart."""
    last_layer(model, len(blocks(model)) - 1)


STRONG, RANDOM = "strongest images", "images at random"


def unit_numbers(
    records: Sequence[ProbeRecord], kept: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """The largest share of one class among the images that excite a unit most: mean over units.

    And among as many images at random. NaN for a level with more images than there are; units that
    no image excites do not count. kept: which images count, bool `[n]`.
    """
    activation, labels = _table(records, ACTIVATION), _labels(records)
    alive = np.ptp(activation, axis=0) > 0
    chance, ties = _drawn(activation.shape, seed)
    ranked = {STRONG: activation, RANDOM: chance}
    if not alive.any():
        return {series: np.full(len(STRONGEST), np.nan) for series in ranked}
    ties = ties[kept][:, alive]
    return {
        series: _purity(table[kept][:, alive], ties, labels[kept]).mean(0)
        for series, table in ranked.items()
    }


def unit_selectivity(records: Sequence[ProbeRecord], seed: int) -> np.ndarray:
    """That share of each unit, `[U, levels]`; NaN also for a unit that no image excites."""
    activation = _table(records, ACTIVATION)
    found = _purity(activation, _drawn(activation.shape, seed)[1], _labels(records))
    found[np.ptp(activation, axis=0) == 0] = np.nan
    return found


def _drawn(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Two numbers for each image and unit, the same whichever images are kept: `[2, n, U]`.

    The order of images at random, and of images that excite a unit equally, which bfloat16 and
    units at 0 make frequent. Listed by class, as they are, they would make any unit look selective.
    """
    return np.random.default_rng(seed).random((2, *shape))


def _strongest(strength: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Images of each unit, the strongest first, both `[n, U]` -> `[n, U]`."""
    order: np.ndarray = np.lexsort((ties, -strength), axis=0)
    return order


def _purity(strength: np.ndarray, ties: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Strength of each image in each unit `[n, U]` -> `[U, levels]`."""
    order = _strongest(strength, ties)[: max(STRONGEST)].T
    found = np.full((strength.shape[1], len(STRONGEST)), np.nan)
    for level, count in enumerate(STRONGEST):
        if count <= len(labels):
            seen = labels[order[:, :count]]
            same = (seen[:, :, None] == seen[:, None, :]).sum(2)
            found[:, level] = same.max(1) / count
    return found


def unit_pictures(records: Sequence[ProbeRecord], root: Path, path: Path, seed: int) -> None:
    """Rows of images: those that excite a unit most, of the units with the purest eight."""
    activation = _table(records, ACTIVATION)
    found = unit_selectivity(records, seed)
    strongest = _strongest(activation, _drawn(activation.shape, seed)[1])
    purest = [unit for unit, shares in enumerate(found) if not np.isnan(shares[0])]
    purest.sort(key=lambda unit: [-v for v in np.nan_to_num(found[unit][::-1])])
    count, rows, captions = min(_COLUMNS, len(records)), [], []
    for unit in purest[:_SHOWN]:
        files = [root / records[at].image for at in strongest[:count, unit]]
        rows.append([np.asarray(read_image(f).resize((_SIDE, _SIDE))) for f in files])
        captions.append([f.parent.name for f in files])
        captions[-1][0] = f"unit {unit}: {captions[-1][0]}"
    if rows:
        figure(rows, [f"{turn}" for turn in range(1, count + 1)], captions, path)
