"""Cue conflict: does a model name an image by its shape or by its texture?

Geirhos et al., ICLR 2019.

Stimuli lie as SHAPE/SHAPEn-TEXTUREm.EXT. The model's classes are mapped to those of the stimuli by
a table.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from refocus.data.folders import class_folders
from refocus.data.images import read_image
from refocus.data.transforms import eval_image
from refocus.errors import InputError
from refocus.evaluation.collect import Question, collect, softmax_shares
from refocus.evaluation.intervals import estimate, sums_interval
from refocus.files import read_json
from refocus.intervals import swap_chance
from refocus.records import CueDecision, Records, Sample, typed
from refocus.results import Change, ShapeBias
from refocus.vit.classes import class_count, class_names, folder_names, imagenet_outputs

log = logging.getLogger("refocus")

_NAME = "cat7-elephant2"  # of a stimulus
Mapping = dict[str, list[int]]  # class of the stimuli -> class indices of the model


class NoMappingError(InputError):
    """There is no table for a model: it lacks ImageNet's classes, and no file was given."""


def only_evaluated(parameter: str, path: str | Path) -> InputError:
    """What to say of `NoMappingError` where no file can be given.

    parameter: what the caller calls the test sets.
    """
    return InputError(
        f"‹{parameter}› cue-conflict={path}: only for models with ImageNet's 1000 classes; "
        "measure it with `refocus evaluate --mapping`"
    )


def mapping(model: nn.Module, file: str | Path | None = None) -> Mapping:
    """The published table for ImageNet models (16 classes, 207 indices), or a JSON file.

    The file is {"cat": ["tabby", 282, ...], ...} with names or indices of the model's classes.

    Raises:
        NoMappingError: a model without a table.
        InputError: a class that the model does not have, or one under two names.
    """
    if file is None:
        outputs = imagenet_outputs(model)
        if outputs is None:
            raise NoMappingError(
                "‹mapping›: missing; the model does not have ImageNet's 1000 classes, so a file "
                "must say which of its classes are cats"
            )
        table = (
            files("refocus")
            .joinpath("assets", "cue_conflict_classes.json")
            .read_text(encoding="utf-8")
        )
        return {
            shape: [outputs[i] for i in indices] for shape, indices in json.loads(table).items()
        }
    content = read_json(Path(file).expanduser())
    if not (
        isinstance(content, dict)
        and content
        and all(isinstance(v, list) and v for v in content.values())
    ):
        raise InputError(
            f'‹mapping› {file}: must be JSON such as {{"cat": ["tabby", "tiger cat"], "dog": '
            '["beagle"]}}'
        )
    found = {
        name: [_index(model, value, file) for value in values] for name, values in content.items()
    }
    used = [i for indices in found.values() for i in indices]
    if doubled := [i for i in used if used.count(i) > 1]:
        raise InputError(
            f"‹mapping› {file}: class {doubled[0]} is given twice; each may belong to one"
        )
    return found


def _index(model: nn.Module, value: Any, file: str | Path) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < class_count(model):
        return value
    for names in (folder_names(model) or [], class_names(model) or []):
        if value in names:
            return names.index(value)
    raise InputError(f"‹mapping› {file}: the model has no class {value!r}")


def stimuli(root: Path, parameter: str = "suites") -> list[Sample]:
    """All stimuli of a folder; their label is not used."""
    folders = class_folders(root, parameter)
    return [Sample(file, 0) for inside in folders.values() for file in inside]


def cue(file: Path) -> tuple[str, str]:
    """Shape and texture from a file's name: "cat7-elephant2.png" -> ("cat", "elephant")."""
    found = re.fullmatch(r"(.+?)\d*-(.+?)\d*", file.stem)
    if not found:
        raise InputError(f"{file}: the name of a stimulus must give both cues, as in {_NAME}")
    return found[1], found[2]


def by_name(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The stimuli whose names give both cues, and the others."""
    named: list[Sample] = []
    others: list[Sample] = []
    for sample in samples:
        try:
            cue(sample.image)
        except InputError:
            others.append(sample)
        else:
            named.append(sample)
    return named, others


def check(root: Path, table: Mapping, *, parameter: str = "suites") -> None:
    """Is there at least one stimulus whose two cues differ and are known to the table?

    parameter: what the caller calls the folder.

    Raises:
        InputError: there is none.
    """
    named, others = by_name(stimuli(root, parameter))
    for sample in named:
        shape, texture = cue(sample.image)
        if shape != texture and {shape, texture} <= set(table):
            return
    also = f" ({len(others)} are not named as {_NAME}: {others[0].image} first)" if others else ""
    raise InputError(
        f"‹{parameter}› {root}: no stimulus has two different cues of {', '.join(table)}{also}"
    )


class _View:
    def __init__(self, model: nn.Module) -> None:
        self.transform = eval_image(model)

    def __call__(self, sample: Sample) -> Tensor:
        cue(sample.image)
        return self.transform(read_image(sample.image))


def decisions(
    model: nn.Module,
    root: Path,
    table: Mapping,
    *,
    records: Path | None = None,
    batch_size: int = 64,
    workers: int = 0,
    label: str = "",
) -> Records[CueDecision]:
    """One record per stimulus: its shape, its texture, and the model's decision.

    The decision is the class whose indices have the highest mean softmax share. Stimuli that cannot
    be read, or whose name does not give both cues, are said.

    Raises:
        InputError: that is so of all of them.
    """
    names = list(table)

    def answer(samples: list[Sample], images: list[Tensor]) -> list[dict[str, Any]]:
        shares = softmax_shares(model, images)
        means = torch.stack([shares[:, table[name]].mean(1) for name in names], dim=1)
        rows = []
        for sample, best in zip(samples, means.argmax(1).tolist(), strict=True):
            shape, texture = cue(sample.image)
            rows.append({"shape": shape, "texture": texture, "decision": names[best]})
        return rows

    lines = collect(
        stimuli(root),
        root,
        Question(_View(model), answer),
        records=records,
        batch_size=batch_size,
        workers=workers,
        label=label,
    )
    found = typed(lines, CueDecision, records or root)
    for reason in found.unreadable.values():
        log.warning("skipped: %s", reason)
    if not found.rows:
        raise InputError(f"‹suites› {root}: none of its {len(lines)} stimuli can be read")
    return found


def shape_bias(rows: Sequence[CueDecision], table: Mapping, seed: int = 0) -> ShapeBias:
    """Share of the decisions for one of the two cues that are for the shape, in [0, 1].

    With an interval.

    Stimuli whose cues agree, and those with a cue that the table does not know, are dropped and
    counted.
    """
    kept = _conflicts(rows, table).values()
    shape = np.array([row.decision == row.shape for row in kept], dtype=bool)
    texture = np.array([row.decision == row.texture for row in kept], dtype=bool)
    decided = shape | texture
    differ = [row for row in rows if row.shape != row.texture]
    return ShapeBias(
        estimate(shape[decided], (0.0, 1.0), seed),
        shape_decisions=int(shape.sum()),
        texture_decisions=int(texture.sum()),
        other_decisions=int((~decided).sum()),
        dropped_same=len(rows) - len(differ),
        dropped_unmapped=len(differ) - len(kept),
    )


def shape_bias_difference(
    model: Sequence[CueDecision],
    against: Sequence[CueDecision],
    table: Mapping,
    seed: int = 0,
) -> Change:
    """Shape bias of `model` minus that of `against` over the same stimuli.

    With a 95 % interval over stimuli, and the p-value of the test that swaps the two models'
    decisions on each stimulus.
    """
    first, second = _conflicts(model, table), _conflicts(against, table)
    shared = [image for image in first if image in second]
    both = np.array([[*_votes(first[i]), *_votes(second[i])] for i in shared], dtype=float).reshape(
        -1, 4
    )

    def change(sums: np.ndarray) -> np.ndarray:
        values: np.ndarray = sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]
        return values

    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(change(both.sum(0)[None])[0])
    if not np.isfinite(value):
        return Change(None, None, len(shared))
    ours, theirs = both[:, :2], both[:, 2:]
    telling = int(min((ours != theirs).any(1).sum(), ours[:, 1].sum(), theirs[:, 1].sum()))
    interval = sums_interval(both, change, _WORST, seed, telling=telling)
    p = swap_chance(ours, theirs, lambda sums: sums[:, 0] / sums[:, 1], seed)
    return Change(value, interval, len(shared), p)


_WORST = ((0, 1, 1, 1), (1, 1, 0, 1))  # texture against shape, and the reverse


def _votes(row: CueDecision) -> tuple[bool, bool]:
    """Was the decision for the shape; was it for one of the two cues?"""
    return row.decision == row.shape, row.decision in (row.shape, row.texture)


def _conflicts(rows: Sequence[CueDecision], table: Mapping) -> dict[str, CueDecision]:
    """The stimuli that count: two different cues that the table knows."""
    return {
        row.image: row
        for row in rows
        if row.shape != row.texture and row.shape in table and row.texture in table
    }
