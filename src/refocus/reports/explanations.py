"""Overlays and numbers for image files: what `refocus explain` writes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from refocus import fingerprints, locks, outputs
from refocus.data.images import read_image
from refocus.data.listing import images_below
from refocus.data.transforms import eval_image
from refocus.errors import InputError, Message
from refocus.figures.pictures import figure, overlay, to_picture
from refocus.files import read_json, write_json
from refocus.progress import track
from refocus.records import (
    Explanation,
    appending,
    drop_partial_line,
    from_json,
    read_lines,
    to_json,
    typed,
    write_line,
)
from refocus.relevance.gae import explain
from refocus.vit.classes import class_count, class_names, folder_names, plain
from refocus.vit.families import view
from refocus.vit.loading import identity, load_together, preprocessing
from refocus.vit.precision import check_precision, computing, decisive_precision


def find(paths: Sequence[Path]) -> list[Path]:
    """Image files as they are, folders as all images below them."""
    found: list[Path] = []
    for path in paths:
        inside = images_below(path, "images") if path.is_dir() else [path]
        if not inside:
            raise InputError(f"‹images› {path}: a folder without images")
        found += inside
    return found


EXPLANATIONS = "explanations.json"
log = logging.getLogger("refocus")
_KEPT = ".explained.jsonl"  # images that are done, until all are


@dataclass(frozen=True)
class ClassShare:
    """A class and its share of the softmax."""

    name: str  # of the class
    confidence: float  # in [0, 1]


@dataclass(frozen=True)
class Answer:
    """What one model says of one image, and where that comes from."""

    prediction: str  # name of the class
    confidence: float  # its softmax share, in [0, 1]
    top5: tuple[ClassShare, ...]  # best first
    explained: str  # name of the class that the map explains
    relevance: tuple[tuple[float, ...], ...]  # of each patch, by rows


@dataclass(frozen=True)
class ExplainedImage:
    """One image of `explanations.json`."""

    image: str  # its path as given
    overlay: str  # file in the same folder
    model: Answer  # what the model says
    against: Answer | None = None  # what the model beside it says


@dataclass(frozen=True)
class Explanations:
    """What `explanations.json` holds."""

    models: dict[str, str]  # what a model is called here -> how it was loaded
    images: tuple[ExplainedImage, ...]  # in the order given
    precision: str = "fp32"  # number format that the models answered in, "fp32" or "bf16"


def read(file: Path) -> list[ExplainedImage]:
    """The images of an `explanations.json`.

    Raises:
        InputError: no such file, or another one.
    """
    return list(from_json(read_json(file), Explanations, file).images)


def write(
    paths: Sequence[Path],
    refs: dict[str, str],
    out: str | Path,
    *,
    target: str | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> list[ExplainedImage]:
    """One PNG per image (what the model saw, then an overlay per model) and explanations.json.

    All models and images are read before the folder is made, so that bad input leaves nothing
    behind.

    Args:
        paths: image files, or folders of them.
        refs: what a model is called here, such as "model" or "against" -> how to load it.
        out: new folder, or that of the same explanations: those that it holds are read.
        target: class to explain, by name or index; None: what is predicted.
        device: where to compute.
        precision: number format that the models answer in, "fp32" or "bf16".

    Returns:
        the images of explanations.json.

    Raises:
        InputError: a file that is no image, a model that cannot be read, an unknown class, or `out`
            lies inside one of the folders.
    """
    for folder in filter(Path.is_dir, paths):
        outputs.refuse_inside(out, {"‹images›": folder})
    check_precision(precision, torch.device(device))
    images = find(paths)
    models = load_together(refs, device)
    for model in models.values():
        view(model)
    targets = {which: _target(model, target) for which, model in models.items()}
    for path in images:
        read_image(path)
    known = {which: identity(ref, models[which]) for which, ref in refs.items()}
    folder = _opened(out, known, images, target, precision)
    with locks.released(folder), computing(precision):
        complete = (folder / outputs.MANIFEST).exists() and (folder / EXPLANATIONS).exists()
        before = read(folder / EXPLANATIONS) if complete else []
        if complete and all((folder / row.overlay).exists() for row in before):
            return _as_asked(before, images)
        rows = _written(folder, images, models, targets, before)
        write_json(folder / EXPLANATIONS, to_json(Explanations(refs, tuple(rows), precision)))
        (folder / _KEPT).unlink(missing_ok=True)
        outputs.finish(folder, "explain")
        return rows


def _as_asked(rows: list[ExplainedImage], images: list[Path]) -> list[ExplainedImage]:
    """The rows in the order of the images, where they are named as they were then."""
    by_name = {row.image: row for row in rows}
    asked = [by_name.get(str(path)) for path in images]
    return rows if None in asked else [row for row in asked if row is not None]


def _written(
    folder: Path,
    images: list[Path],
    models: dict[str, nn.Module],
    targets: dict[str, int | None],
    before: list[ExplainedImage],
) -> list[ExplainedImage]:
    """Every image's row; overlays that are not there yet, or no longer, are drawn.

    before: rows that are known.
    """
    kept = folder / _KEPT
    drop_partial_line(kept)
    done = {row.image: row for row in before}
    done |= {row.image: row for row in typed(read_lines(kept), ExplainedImage, kept).rows}
    rows = []
    # its number is the image's in the order of the first start, so that no overlay is taken twice
    order = {name: i for i, name in enumerate(read_json(folder / outputs.SETTINGS)["images"])}
    with appending(kept) as lines:
        for path in track(images, "explaining"):
            row = done.get(str(path))
            if row is None or not (folder / row.overlay).exists():
                position = order[str(path.resolve())]
                overlaid = folder / f"{position:04d}-{path.stem[:60]}.png"
                answers = _explained(path, models, targets, overlaid)
                row = ExplainedImage(str(path), overlaid.name, **answers)
                write_line(lines, row)
                lines.flush()
            rows.append(row)
    return rows


def _opened(
    out: str | Path,
    models: dict[str, list[str]],
    images: list[Path],
    target: str | None,
    precision: str,
) -> Path:
    """A new folder, or the one in which the same was begun."""
    settings = {
        "models": models,
        "images": {str(path.resolve()): fingerprints.of_file(path) for path in images},
        "target": target,
        **decisive_precision(precision),
    }
    return outputs.resumable(out, True, settings)


def _explained(
    path: Path, models: dict[str, nn.Module], targets: dict[str, int | None], overlaid: Path
) -> dict[str, Answer]:
    """Every model's answer on one image, drawn into one PNG."""
    tiles: list[np.ndarray] = []
    titles, captions = ["image"], [path.name.encode("utf-8", "replace").decode()]
    answers = {}
    for which, model in models.items():
        config = preprocessing(model)
        pixels = eval_image(model)(read_image(path)).to(next(model.parameters()).device)
        explanation = explain(model, pixels[None], targets[which])
        answers[which] = _answer(model, explanation)
        picture = to_picture(pixels, config["mean"], config["std"])
        tiles = tiles or [picture]
        tiles.append(overlay(picture, explanation.relevance[0]))
        titles.append(which)
        captions.append(f"{answers[which].prediction} ({answers[which].confidence:.0%})")
    figure([tiles], titles, [captions], overlaid)
    return answers


def _target(model: nn.Module, wanted: str | None) -> int | None:
    """Index of a class given by name, folder name or index; a name that is a number is a name."""
    if wanted is None:
        return None
    number = int(wanted) if wanted.isdecimal() and int(wanted) < class_count(model) else None
    for names in (class_names(model) or [], folder_names(model) or []):
        known = [plain(name) for name in names]
        if plain(wanted) in known:
            named = known.index(plain(wanted))
            if number not in (None, named):
                log.warning(
                    Message(
                        f"‹target› {wanted}: is taken as the name of output {named}, not as the "
                        f"number of output {number}, which is called {names[number]!r}"
                    )
                )
            return named
    if number is not None:
        return number
    raise InputError(
        f"‹target› {wanted}: the model has no such class; give a name it knows or an index from 0 "
        f"to {class_count(model) - 1}"
    )


def _answer(model: nn.Module, explanation: Explanation) -> Answer:
    names = class_names(model) or [str(i) for i in range(class_count(model))]
    shares = explanation.logits[0].float().softmax(0)
    top = shares.topk(min(5, len(shares)))
    best = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return Answer(
        prediction=names[int(top.indices[0])],
        confidence=float(top.values[0]),
        top5=tuple(ClassShare(names[i], share) for i, share in best),
        explained=names[int(explanation.targets[0])],
        relevance=tuple(map(tuple, explanation.patches[0].cpu().tolist())),
    )
